"""Contract: a step after a method does to each matrix of its update what the step's formula says, whatever the method.

The formula is computed here by singular value decomposition in float64 on the update that the method alone makes.
Other tensors are as without the step, and the step belongs to the merge's name, identity, manifest and card.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rammerge.engine.matrices.updates import UpdateFile
from rammerge.engine.options import MergeOptions
from rammerge.errors import InputError
from rammerge.recipe import parse
from rammerge.rules import METHODS, resolve
from tests.engine.models import Models, merge, read, sparse_family, weight_bytes, write_family
from tests.rules.spectral import calibrated, drawn

MATRICES = {"tall.weight": (40, 24), "wide.q_proj": (24, 40), "square.embed": (31, 31)}
SVC = [{"svc": {"alpha": 0.1}}]
EAGER = MergeOptions(compile="never", threads=2)
FOLLOWED = sorted(name for name, method in METHODS.items() if not method.refuses_steps)


def family(root: Path) -> Models:
    """Return agents with large common changes of a base of zeros, whose merges in float32 are exactly the updates."""
    base = {"norm.weight": torch.zeros(33), **{name: torch.zeros(shape) for name, shape in MATRICES.items()}}
    agents = [{"norm.weight": torch.linspace(-1.0, 1.0, 33) * (agent + 1)} for agent in range(3)]
    for name, shape in MATRICES.items():
        for agent, matrix in zip(agents, drawn(shape, 3), strict=True):
            agent[name] = 1e3 * matrix.float()
    return write_family(root, base, agents)


def updates(models: Models, out: Path, method: str, **settled: Any) -> dict[str, Tensor]:
    return read(merge(*models, resolve(method, None, settled.pop("params", {}), **settled), out, EAGER).path)


@pytest.mark.parametrize("method", FOLLOWED)
def test_calibration_after_any_method(method: str, tmp_path: Path) -> None:
    models, weights = family(tmp_path), {} if METHODS[method].refuses_weights else {"agent1": 0.5}
    alone = updates(models, tmp_path / "alone", method, weights=weights)
    found = updates(models, tmp_path / "found", method, weights=weights, then=SVC)
    agents = [read(agent.path) for agent in models[1].values()]
    assert torch.equal(found["norm.weight"], alone["norm.weight"])
    factors = [1.0, 0.5 if weights else 1.0, 1.0]
    if method == "linear":
        factors = [factor * 3 / 2.5 for factor in factors]
    for name in MATRICES:
        vectors = [factor * agent[name].double() for factor, agent in zip(factors, agents, strict=True)]
        expected = calibrated(alone[name].double(), vectors, 0.1)
        # What the method alone made was rounded to float32, which weak directions of its result feel more.
        assert float((found[name] - expected).norm()) <= 3e-5 * float(expected.norm()), name
        assert float((found[name] - alone[name]).norm()) > 1e-3 * float(expected.norm()), name


def test_steps_follow_one_another(tmp_path: Path) -> None:
    models = family(tmp_path)
    twice = [{"svc": {"alpha": 0.9}}, {"svc": {"alpha": 0.5}}]
    for method in ("task_arithmetic", "tsv_m"):
        params = {"scale": 0.5}
        alone = updates(models, tmp_path / f"{method}-alone", method, params=params)
        found = updates(models, tmp_path / f"{method}-found", method, params=params, then=twice)
        for name in MATRICES:
            vectors = [read(agent.path)[name].double() for agent in models[1].values()]
            expected = calibrated(calibrated(alone[name].double(), vectors, 0.9), vectors, 0.5)
            assert float((found[name] - expected).norm()) <= 3e-5 * float(expected.norm())


def test_calibration_takes_the_scale_back_and_says_so(tmp_path: Path) -> None:
    models, then = family(tmp_path), [{"svc": {"alpha": 1e-9}}]
    whole = updates(models, tmp_path / "whole", "task_arithmetic", then=then)
    report = merge(*models, resolve("task_arithmetic", None, {"scale": 0.25}, then=then), tmp_path / "part", EAGER)
    for name in MATRICES:
        torch.testing.assert_close(read(report.path)[name], whole[name], rtol=1e-4, atol=1e-6)
    assert [warning for warning in report.warnings if "takes the scale of matrices back" in warning]


def test_calibration_of_one_agent_changes_nothing(tmp_path: Path) -> None:
    base, agents = family(tmp_path)
    for alone in ("task_arithmetic", "tsv_m"):
        models = base, {"agent0": agents["agent0"]}
        found = updates(models, tmp_path / alone, alone, then=[{"svc": {"alpha": 1.0}}])
        for name, values in read(agents["agent0"].path).items():
            torch.testing.assert_close(found[name], values, rtol=1e-5, atol=1e-6)


def test_calibration_follows_rotations(tmp_path: Path) -> None:
    models = family(tmp_path / "plain")
    turn, _ = torch.linalg.qr(drawn((40, 40), 1, seed=1)[0])
    other, _ = torch.linalg.qr(drawn((24, 24), 1, seed=2)[0])
    agents = [read(agent.path) for agent in models[1].values()]
    for agent in agents:
        agent["tall.weight"] = (turn @ agent["tall.weight"].double() @ other).float()
        agent["wide.q_proj"] = (other @ agent["wide.q_proj"].double() @ turn).float()
    others = write_family(tmp_path / "turned", read(models[0].path), agents)
    turned = updates(others, tmp_path / "a", "average", then=SVC)
    plain = updates(models, tmp_path / "b", "average", then=SVC)
    for name, expected in (
        ("tall.weight", turn @ plain["tall.weight"].double() @ other),
        ("wide.q_proj", other @ plain["wide.q_proj"].double() @ turn),
    ):
        assert float((turned[name] - expected).norm()) <= 1e-4 * float(expected.norm())


@pytest.mark.parametrize("method", ["ram_plus", "dare", "della"])
def test_bytes_do_not_depend_on_threads(method: str, tmp_path: Path) -> None:
    shapes = {"wide.q_proj": (300, 700), "norm.weight": (64,)}
    models = write_family(tmp_path, *sparse_family(shapes, [0.6, 0.8, 0.5]))
    settled = resolve(method, then=SVC)
    one = merge(*models, settled, tmp_path / "one", MergeOptions("bfloat16", compile="never", threads=1))
    many = merge(*models, settled, tmp_path / "many", MergeOptions("bfloat16", compile="never", threads=3))
    assert weight_bytes(many.path) == weight_bytes(one.path)


def test_an_interruption_before_a_matrix_is_whole_costs_no_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, settled = family(tmp_path), resolve("ram_plus", then=SVC)
    options = MergeOptions(compile="never", threads=1)
    expected = weight_bytes(merge(*models, settled, tmp_path / "expected", options).path)
    finish, finished = UpdateFile.finish, list[str]()

    def interrupted(self: UpdateFile, name: str, *found: Any) -> None:
        if finished:  # its product has replaced what the kernel made, and nothing says so
            raise KeyboardInterrupt
        finish(self, name, *found)
        finished.append(name)

    with monkeypatch.context() as patch:
        patch.setattr(UpdateFile, "finish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            merge(*models, settled, tmp_path / "out", options)
    assert weight_bytes(merge(*models, settled, tmp_path / "out", options).path) == expected


def test_rules_for_tensors_and_copies_keep_their_meaning(tmp_path: Path) -> None:
    models = family(tmp_path)
    rules = [{"match": "tall*", "use": "agent2"}, {"match": "wide*", "params": {"scale": 0.5}}]
    then = [{"svc": {"alpha": 0.9}}]
    found = updates(models, tmp_path / "out", "task_arithmetic", tensors=rules, then=then)
    half = updates(models, tmp_path / "half", "task_arithmetic", params={"scale": 0.5}, then=then)
    assert torch.equal(found["tall.weight"], read(models[1]["agent2"].path)["tall.weight"])
    assert torch.equal(found["wide.q_proj"], half["wide.q_proj"])


def test_steps_are_recorded_and_belong_to_the_identity(tmp_path: Path) -> None:
    models = family(tmp_path)
    settings = merge(*models, resolve("ties", then=["svc"]), tmp_path / "out", EAGER).manifest.settings
    assert settings.then == [{"svc": {"alpha": 0.1}}]
    assert "Then `svc` with alpha = 0.1." in (tmp_path / "out" / "README.md").read_text()
    plain = merge(*models, resolve("ties"), tmp_path / "plain", EAGER).manifest.settings
    assert "then" not in plain.to_json() and settings.to_json() != plain.to_json()


def test_a_recipe_names_variants_by_their_steps(tmp_path: Path) -> None:
    recipe = parse(
        tmp_path / "recipe.yaml",
        "name: x\nbase: b\nagents: {a: a}\nevaluation: {suites: [zoo_tool]}\n"
        "merges:\n  - {method: tsv_m, then: [svc]}\n  - {method: task_arithmetic, params: {scale: 0.7}, "
        "then: [{svc: {alpha: 0.2}}]}\n",
    )
    assert [variant.name for variant in recipe.variants()] == ["tsv_m-svc", "task_arithmetic-scale0.7-svc-alpha0.2"]
    assert recipe.variants()[1].then == [{"svc": {"alpha": 0.2}}]


@pytest.mark.parametrize(
    ("method", "then", "message"),
    [
        ("iso_c", ["svc"], r"after method 'iso_c' no step may follow: all singular values of its result are equal"),
        ("ram", ["svd"], r"then\[0\]: unknown step 'svd' \(did you mean 'svc'\?\); the steps are svc"),
        ("ram", [{"svc": {"alhpa": 1}}], r"then\[0\]\.svc: unknown key 'alhpa' \(did you mean 'alpha'\?\)"),
        ("ram", [{"svc": {"alpha": 0}}], r"then\[0\]\.svc: alpha: should be above 0, not 0"),
        ("ram", [{"svc": {}, "other": {}}], r"then\[0\] must be one step, such as svc"),
        ("svc", [], r"'svc' is a step after a method: use task_arithmetic, or another method, and then svc"),
    ],
)
def test_mistakes_are_named(method: str, then: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve(method, then=then)
