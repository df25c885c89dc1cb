"""Contract: `esm` gives what the authors' formula gives by numpy's singular value decompositions in float64.

Shifts of outputs choose directions; both factors get equal strengths; layers of one kind are weighed by their lengths.
Matrices of which there is no data are merged as by TSV-M, and other tensors by the mean.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from rammerge.activations.activations import Activations, LayerInputs
from rammerge.activations.prompts import Prompt, Prompts
from rammerge.engine.matrices import moments, view
from rammerge.engine.matrices.updates import UpdateFile
from rammerge.engine.options import MergeOptions
from rammerge.errors import InputError
from rammerge.rules import ResolvedMethod, resolve
from tests.engine.models import Models, merge, read, sparse_family, weight_bytes, write, write_family
from tests.rules.spectral import iso_c, tsv_m

Matrix = npt.NDArray[np.float64]

SHAPES = {
    "layers.0.wide": (20, 45),
    "layers.1.wide": (20, 45),
    "layers.0.tall": (50, 16),
    "layers.0.square": (24, 24),
    "layers.0.conv_wide": (18, 40),
    "layers.0.conv_tall": (40, 18),
    "layers.0.conv_square": (22, 22),
    "embedding": (40, 12),
    "layers.0.bias": (30,),
}
MATRICES = [name for name in SHAPES if name not in ("embedding", "layers.0.bias")]
AGENTS = ("agent0", "agent1", "agent2")
OPTIONS = MergeOptions("float32", compile="never", threads=2)


def esm(deltas: Sequence[Matrix], inputs: Sequence[Matrix], scale: float = 1.0, power: float = 0.15) -> Matrix:
    """Return the merge of one layer: deltas [outputs, inputs], inputs [tokens, inputs] of each agent."""
    left, right = [], []
    for delta, seen in zip(deltas, inputs, strict=True):
        shift = seen @ delta.T
        _, values, vectors = np.linalg.svd(shift, full_matrices=False)
        # The published code fills up with arbitrary directions where there are fewer than outputs // agents.
        kept = min(max(1, len(delta) // len(deltas)), int((values > 1e-6 * values[0]).sum()))
        strength = values[:kept] ** 2 / (len(seen) - 1)
        strength = (strength / strength.mean()) ** power
        strength /= strength.mean()
        left.append(vectors[:kept].T * strength)
        right.append(vectors[:kept] @ delta * strength[:, None])
    return scale * _equal(np.concatenate(left, 1)) @ _equal(np.concatenate(right))


def _equal(matrix: Matrix) -> Matrix:
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    equal: Matrix = left @ right * values.mean()
    return equal


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Models:
    monkeypatch.setattr(view, "BLOCK_ELEMENTS", 400)
    monkeypatch.setattr(view, "_LEAST_WIDTH", 16)
    monkeypatch.setattr(moments, "CHUNK_TOKENS", 32)
    base, agents = sparse_family(SHAPES, [1.0, 0.7, 1.0])
    return write_family(tmp_path / "models", base, agents)


def written(directory: Path, lengths: Sequence[int] = (30, 20, 24), agents: Sequence[str | None] = ()) -> Activations:
    """Write random activations for all matrices."""
    directory.mkdir()
    layers, rng = {}, np.random.default_rng(3)
    for name in MATRICES:
        width = SHAPES[name][0 if "conv" in name else 1]
        (rng.standard_normal((sum(lengths), width)) * np.geomspace(1, 0.1, width)).astype("<f4").tofile(
            directory / name
        )
        layers[name] = LayerInputs(name, width, "conv" in name)
    found = Activations(directory, tuple(lengths), tuple(agents) or (None,) * len(lengths), layers)
    found.write()
    return found


def settled(agents: Sequence[str | None] = (), **params: float) -> ResolvedMethod:
    prompts = Prompts(Path("prompts.txt"), "0" * 64, tuple(Prompt("text", agent) for agent in agents or (None,)))
    return resolve("esm", None, params, prompts=prompts)


def deltas_of(models: Models, name: str) -> list[Matrix]:
    base, agents = models
    before = read(base.path)[name].float()
    return [(read(agent.path)[name].float() - before).double().numpy() for agent in agents.values()]


def updates(models: Models, method: ResolvedMethod, out: Path, activations: Activations) -> dict[str, Matrix]:
    merged = read(merge(*models, method, out, OPTIONS, activations=activations).path)
    before = read(models[0].path)
    return {name: (merged[name].double() - before[name].double()).numpy() for name in merged}


def close(found: Matrix, expected: Matrix, base_size: float = 1.0) -> None:
    assert np.linalg.norm(found - expected) <= 1e-6 * np.linalg.norm(expected) + 1e-7 * base_size


@pytest.mark.parametrize("owners", [(), ("agent0", None, "agent2"), ("agent0", "agent1", "agent2")])
def test_the_published_formula(models: Models, tmp_path: Path, owners: Sequence[str | None]) -> None:
    activations = written(tmp_path / "activations", agents=owners)
    found = updates(models, settled(owners, scale=0.5), tmp_path / "out", activations)
    edges = np.cumsum([0, *activations.lengths])
    rows = [
        np.concatenate(
            [
                np.arange(edges[at], edges[at + 1])
                for at, owner in enumerate(activations.agents)
                if owner in (None, agent)
            ]
        )
        for agent in AGENTS
    ]
    expected = {}
    for name in MATRICES:
        layer = activations.layers[name]
        seen = np.fromfile(activations.directory / name, "<f4").astype(float).reshape(-1, layer.width)
        deltas = [delta.T if layer.inputs_first else delta for delta in deltas_of(models, name)]
        merged = esm(deltas, [seen[own] for own in rows], 0.5)
        expected[name] = merged.T if layer.inputs_first else merged
    lengths = {name: np.linalg.norm(expected[name]) for name in ("layers.0.wide", "layers.1.wide")}
    for name, length in lengths.items():
        expected[name] = expected[name] * (length / np.mean(list(lengths.values()))) ** 2
    for name in MATRICES:
        close(found[name], expected[name], float(read(models[0].path)[name].double().norm()))


def test_matrices_without_data_are_merged_by_tsv_and_the_rest_by_the_mean(models: Models, tmp_path: Path) -> None:
    found = updates(models, settled(scale=0.5), tmp_path / "out", written(tmp_path / "activations"))
    wanted = tsv_m([torch.from_numpy(delta) for delta in deltas_of(models, "embedding")], scale=0.5).numpy()
    close(found["embedding"], wanted)
    close(found["layers.0.bias"], 0.5 * np.mean(deltas_of(models, "layers.0.bias"), axis=0))


def test_order_scale_and_layers_that_nobody_weighs(models: Models, tmp_path: Path) -> None:
    activations = written(tmp_path / "activations")
    base, agents = models
    found = updates(models, settled(), tmp_path / "out", activations)
    turned = dict(reversed(agents.items()))
    again = updates((base, turned), settled(), tmp_path / "turned", activations)
    plain = updates(models, settled(layer_exponent=0.0), tmp_path / "plain", activations)
    double = updates(models, settled(scale=2.0), tmp_path / "double", activations)
    for name in MATRICES:
        close(again[name], found[name])
        close(double[name], 2 * found[name])
        if "wide" not in name or "conv" in name:
            close(plain[name], found[name])
    ratio = np.linalg.norm(found["layers.0.wide"]) / np.linalg.norm(plain["layers.0.wide"])
    assert abs(ratio - 1) > 1e-3


def test_an_agent_equal_to_the_base_takes_no_part(models: Models, tmp_path: Path) -> None:
    base, agents = models
    activations = written(tmp_path / "activations")
    idle = read(base.path)
    idle["layers.0.bias"] = idle["layers.0.bias"] + 0.1
    unchanged = write(tmp_path / "idle", idle)
    with_base = (base, {"agent0": agents["agent0"], "agent1": unchanged, "agent2": agents["agent2"]})
    without = (base, {"agent0": agents["agent0"], "agent2": agents["agent2"]})
    found = updates(with_base, settled(), tmp_path / "with", activations)
    expected = updates(without, settled(), tmp_path / "without", activations)
    for name in MATRICES:
        close(found[name], expected[name])


def test_one_agent_with_all_directions_of_equal_strength_is_iso_c(models: Models, tmp_path: Path) -> None:
    base, agents = models
    found = updates(
        (base, {"agent0": agents["agent0"]}),
        settled(component_exponent=0.0, layer_exponent=0.0),
        tmp_path / "out",
        written(tmp_path / "activations", (40, 60)),
    )
    for name in MATRICES:
        close(found[name], iso_c([torch.from_numpy(deltas_of(models, name)[0])]).numpy())


def test_bytes_do_not_depend_on_threads_or_on_where_a_run_was_interrupted(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    activations = written(tmp_path / "activations")

    def content(out: str, threads: int) -> dict[str, bytes]:
        options = MergeOptions("bfloat16", "stochastic", compile="never", threads=threads)
        return weight_bytes(merge(*models, settled(), tmp_path / out, options, activations=activations).path)

    expected = content("one", 1)
    assert content("two", 2) == expected
    for step, after in (("finish", 3), ("scale", 4)):
        with monkeypatch.context() as patch:
            patch.setattr(UpdateFile, step, interrupted(getattr(UpdateFile, step), after))
            with pytest.raises(KeyboardInterrupt):
                content(step, 1)
        assert content(step, 1) == expected


def interrupted(plain: Callable[..., None], after: int) -> Callable[..., None]:
    """Return a function that does what `plain` does some times, and is then interrupted."""
    left = [None] * after

    def call(*given: object) -> None:
        if not left:
            raise KeyboardInterrupt
        left.pop()
        plain(*given)

    return call


def test_what_is_missing_or_wrong_is_one_sentence() -> None:
    with pytest.raises(InputError, match=r"'esm' needs data: give a file of unlabeled prompts"):
        resolve("esm").check_prompts(AGENTS)
    with pytest.raises(InputError, match=r"'ram' needs no data"):
        resolve("ram", prompts=settled().prompts)
    with pytest.raises(InputError, match=r"a prompt of 'agent9', which is not an agent \(did you mean"):
        settled(["agent9"]).check_prompts(AGENTS)
    with pytest.raises(InputError, match="no prompt for agent 'agent1'"):
        settled(["agent0", "agent2"]).check_prompts(AGENTS)
