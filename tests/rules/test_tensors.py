"""Contract: tensors that a rule's pattern matches are copied, or merged as a merge with those parameters would.

The first match holds, all other tensors are as without rules, and a pattern that matches nothing is refused.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from rammerge.engine.options import MergeOptions
from rammerge.errors import InputError
from rammerge.rules import resolve
from rammerge.rules.tensors import check_matches, read_rules
from rammerge.system.toolchain import compiler
from tests.engine.models import Models, merge, read, sparse_family, weight_bytes, write_family

SHAPES = {"embed.weight": (64, 32), "layers.0.weight": (32, 32), "layers.1.weight": (32, 32), "norm.weight": (32,)}
RULES: list[dict[str, Any]] = [
    {"match": "embed*", "use": "base"},
    {"match": "*norm*", "use": "agent1"},
    {"match": "layers.[1-9].*", "params": {"r": 0.0}},
    {"match": "*", "params": {"r": 0.3, "alpha": 5.0}},
]


@pytest.fixture
def models(tmp_path: Path) -> Models:
    return write_family(tmp_path, *sparse_family(SHAPES, [0.3, 0.6]))


def merged(models: Models, out: Path, options: MergeOptions | None = None, **settled: Any) -> dict[str, torch.Tensor]:
    method, params = settled.pop("method", "ram_plus"), settled.pop("params", {})
    return read(merge(*models, resolve(method, None, params, **settled), out, options).path)


def test_each_tensor_is_as_the_first_rule_that_matches_says(models: Models, tmp_path: Path) -> None:
    base, agents = models
    found = merged(models, tmp_path / "out", tensors=RULES)
    assert torch.equal(found["embed.weight"], read(base.path)["embed.weight"].float())
    assert torch.equal(found["norm.weight"], read(agents["agent1"].path)["norm.weight"].float())
    plain = merged(models, tmp_path / "plain", params={"r": 0.0})
    strong = merged(models, tmp_path / "strong", params={"r": 0.3, "alpha": 5.0})
    assert torch.equal(found["layers.1.weight"], plain["layers.1.weight"])
    assert torch.equal(found["layers.0.weight"], strong["layers.0.weight"])
    assert not torch.equal(plain["layers.0.weight"], strong["layers.0.weight"])


@pytest.mark.parametrize(
    ("method", "params"), [("ties", {"density": 0.5}), ("ram", {"epsilon": 1e-3}), ("ram", {"mask_mode": "exact"})]
)
def test_parameters_bring_their_own_statistics_and_masks(
    models: Models, tmp_path: Path, method: str, params: dict[str, Any]
) -> None:
    rules = [{"match": "layers.0*", "params": params}]
    found = merged(models, tmp_path / "out", method=method, tensors=rules)
    with_params = merged(models, tmp_path / "with", method=method, params=params)
    without = merged(models, tmp_path / "without", method=method)
    for name, values in found.items():
        assert torch.equal(values, (with_params if name.startswith("layers.0") else without)[name])


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_what_is_copied_keeps_its_bits_in_its_own_dtype(models: Models, tmp_path: Path, rounding: Any) -> None:
    rules = [{"match": "embed*", "use": "base"}, {"match": "*", "use": "agent0"}]
    found = merged(models, tmp_path / "out", MergeOptions("bfloat16", rounding), tensors=rules)
    base, agent = read(models[0].path), read(models[1]["agent0"].path)
    for name, values in found.items():
        wanted = base[name] if name.startswith("embed") else agent[name]
        assert torch.equal(values.view(torch.int16), wanted.view(torch.int16))


def test_copies_are_counted_as_what_they_keep(models: Models, tmp_path: Path) -> None:
    rules = [{"match": "*", "use": "agent0"}]
    survival = merge(*models, resolve("ram_plus", tensors=rules), tmp_path / "out").manifest.survival
    base, agent = read(models[0].path), read(models[1]["agent0"].path)
    moved = sum(int((agent[name] != values).sum()) for name, values in base.items())
    assert (survival.changed, survival.kept) == (moved, moved)
    assert survival.agents["agent0"].survived == survival.agents["agent0"].active
    assert survival.distinct == 0


@pytest.mark.skipif(compiler() is None, reason="compiles C++")
@pytest.mark.usefixtures("compiled_here")
def test_compiled_and_eager(models: Models, tmp_path: Path) -> None:
    method = resolve("ram_plus", tensors=RULES)
    eager = merge(*models, method, tmp_path / "eager", MergeOptions("bfloat16", compile="never"))
    fused = merge(*models, method, tmp_path / "fused", MergeOptions("bfloat16", compile="always"))
    assert weight_bytes(fused.path) == weight_bytes(eager.path)
    assert not [warning for warning in fused.warnings if "eagerly" in warning]


def test_rules_are_recorded(models: Models, tmp_path: Path) -> None:
    report = merge(*models, resolve("ram_plus", tensors=RULES), tmp_path / "out")
    assert report.manifest.settings.tensors == RULES
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Tensors `embed*`: copied from base.\n\nTensors `*norm*`: copied from agent1." in card
    assert "Tensors `layers.[1-9].*`: merged with r = 0.0." in card


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            {"match": "lyaers.0*", "use": "base"},
            r"tensors 'lyaers.0\*' match no float tensor .*'layers.0.weight'",
        ),
        ({"match": "*", "use": "agnet0"}, r"tensors '\*' use 'agnet0', which is neither base nor an agent .*'agent0'"),
        ({"match": "*", "params": {"rr": 1}}, r"tensors '\*': method 'ram_plus' has no parameter 'rr'"),
        ({"match": "*"}, r"tensors\[0\]: the rule for '\*' needs either `use` or `params`"),
        ({"match": "*", "use": "base", "params": {"r": 1}}, r"needs either `use` or `params`"),
        ({"mach": "*", "use": "base"}, r"tensors\[0\]: unknown key 'mach' \(did you mean 'match'\?\)"),
    ],
)
def test_mistakes_are_named_before_any_work(models: Models, tmp_path: Path, rule: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        merge(*models, resolve("ram_plus", tensors=[rule]), tmp_path / "out")
    assert not list(tmp_path.glob(".out*"))


def test_a_tied_tensor_goes_by_the_name_of_its_partner() -> None:
    rules, tied = read_rules([{"match": "lm_head*", "use": "base"}]), {"lm_head.weight": "embed.weight"}
    with pytest.raises(InputError, match=r"lm_head\.weight is tied to embed\.weight, match that"):
        check_matches(rules, ["embed.weight"], tied)
    check_matches(rules, ["embed.weight", "lm_head.weight"], {})
