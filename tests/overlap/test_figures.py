"""Contract: what `inspect` says of agents is what naive float64 code counts.

Overlap beside chance, signs, cosines of parts of the model, what bfloat16 hides, and the ranks of changes.
"""

import json
import math
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from rammerge.checkpoints.family import Family
from rammerge.engine.matrices import view
from rammerge.engine.matrices.ranks import measure_ranks
from rammerge.engine.options import MergeOptions
from rammerge.engine.passes.measuring import measure_overlap
from rammerge.errors import InputError
from rammerge.overlap import Overlap
from tests.engine.models import Models, as_float64, read, write_family

SHAPES = {
    "embed.weight": (30, 20),
    **{f"layers.{layer}.{name}": shape for layer in range(10) for name, shape in (("up", (12, 8)), ("norm", (12,)))},
}
EPSILON = np.float32(1e-5)

Deltas = list[dict[str, npt.NDArray[np.float64]]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Agents of float32 whose changes are of all sizes, more of them in the same places than by chance."""
    generator = torch.Generator().manual_seed(0)
    base: dict[str, torch.Tensor] = {}
    agents: list[dict[str, torch.Tensor]] = [{}, {}, {}]
    for name, shape in SHAPES.items():
        base[name] = torch.randn(shape, generator=generator) * 0.1
        likely = torch.rand(shape, generator=generator)
        for agent in agents:
            moved = torch.rand(shape, generator=generator) < likely
            size = 10.0 ** (torch.rand(shape, generator=generator) * 4 - 6)
            agent[name] = base[name] + moved * size * torch.randn(shape, generator=generator).sign()
    return write_family(tmp_path_factory.mktemp("models"), base, agents)


@pytest.fixture(scope="module")
def overlap(models: Models) -> Overlap:
    return measure_overlap(Family.open(*models), ranks=True)


@pytest.fixture(scope="module")
def deltas(models: Models) -> Deltas:
    base = as_float64(read(models[0].path))
    return [
        {
            name: (agent - base[name]).astype(np.float32).astype(float)
            for name, agent in as_float64(read(each.path)).items()
        }
        for each in models[1].values()
    ]


def test_pairs_of_agents(overlap: Overlap, deltas: Deltas) -> None:
    assert overlap.pairs is not None
    expected = []
    for left, right in combinations(deltas, 2):
        both = agree = 0
        for name in SHAPES:
            changed = (np.abs(left[name]) > EPSILON) & (np.abs(right[name]) > EPSILON)
            both += int(changed.sum())
            agree += int((changed & (left[name] * right[name] > 0)).sum())
        expected.append((both, agree))
    assert overlap.pairs.counts() == expected
    assert overlap.pairs.names() == [("agent0", "agent1"), ("agent0", "agent2"), ("agent1", "agent2")]
    for (both, _), chance in zip(expected, overlap.both_by_chance(), strict=True):
        assert both > 1.1 * chance  # they were drawn so


def test_chance_is_the_mean_of_agents_that_choose_independently() -> None:
    from rammerge.overlap.chance import both_by_chance, shared_by_chance

    rng, size, active = np.random.default_rng(0), 50, [30, 10, 20]
    shared, both = np.zeros(3), np.zeros(3)
    for _ in range(rounds := 3000):
        masks = [rng.permutation(size) < count for count in active]
        total = np.sum(masks, axis=0)
        shared += [int((mask & (total > 1)).sum()) for mask in masks]
        both += [int((left & right).sum()) for left, right in combinations(masks, 2)]
    assert shared / rounds == pytest.approx(shared_by_chance(active, size), rel=0.02)
    assert both / rounds == pytest.approx(both_by_chance(active, size), rel=0.02)
    assert shared_by_chance([0, 0], 0) == [0.0, 0.0]


def test_parts_of_the_model(overlap: Overlap, deltas: Deltas) -> None:
    modules = {part.name: part for part in overlap.modules()}
    assert list(modules) == ["embed", "norm", "up"]
    layers = overlap.layers(4)
    assert [part.name for part in layers] == ["0-2", "3-5", "6-8", "9", "outside"]
    assert [part.name for part in overlap.layers(10)] == [*map(str, range(10)), "outside"]
    for part in (modules["up"], layers[1]):
        joined = [np.concatenate([each[name].ravel() for name in part.tensors]) for each in deltas]
        masks = [np.abs(each) > EPSILON for each in joined]
        total = np.sum(masks, axis=0)
        assert part.densities == pytest.approx([mask.mean() for mask in masks])
        assert part.shared == sum(int((mask & (total > 1)).sum()) for mask in masks)
        cosines = [
            float(left @ right / np.linalg.norm(left) / np.linalg.norm(right))
            for left, right in combinations(joined, 2)
        ]
        assert part.cosine == pytest.approx(np.mean(cosines), rel=1e-9)
        pairs = [
            (left[one & other], right[one & other])
            for (left, one), (right, other) in combinations(zip(joined, masks, strict=True), 2)
        ]
        same = sum(int((left * right > 0).sum()) for left, right in pairs)
        assert part.same_sign == pytest.approx(same / sum(len(left) for left, _ in pairs))
    assert (
        sum(part.elements for part in layers) == overlap.elements == sum(math.prod(shape) for shape in SHAPES.values())
    )


def test_what_bfloat16_hides(overlap: Overlap, models: Models, deltas: Deltas) -> None:
    base = as_float64(read(models[0].path))
    for found, own in zip(overlap.densities.values(), deltas, strict=True):
        changed = hidden = 0
        for name in SHAPES:
            step = 2.0 ** (np.floor(np.log2(np.abs(base[name]))) - 7)
            changed += int((own[name] != 0).sum())
            hidden += int(((own[name] != 0) & (np.abs(own[name]) < step / 2)).sum())
        assert found.hidden == pytest.approx(hidden / changed)
        assert 0.2 < found.hidden < 0.9


def test_an_agent_of_bfloat16_hides_nothing(tmp_path: Path) -> None:
    base = {"w": torch.tensor([1.0, -2.0, 0.0, 3.0, 1e-39]).bfloat16()}
    agent = {"w": torch.tensor([1.0078125, -1.9921875, 1e-6, 3.0, 1e-38]).bfloat16()}
    found = measure_overlap(Family.open(*write_family(tmp_path, base, [agent])))
    assert found.densities["agent0"].hidden == 0.0


def rank(matrix: npt.NDArray[np.float64]) -> tuple[float, float]:
    values = np.linalg.svd(matrix, compute_uv=False)
    shares = values / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum())), float((values**2).sum() / values[0] ** 2)


def test_ranks_are_those_of_singular_values(overlap: Overlap, deltas: Deltas) -> None:
    assert overlap.ranks is not None
    assert set(overlap.ranks.by_tensor) == {name for name, shape in SHAPES.items() if len(shape) == 2}
    for name, found in overlap.ranks.by_tensor.items():
        assert found.full == min(SHAPES[name])
        for at, own in enumerate(deltas):
            assert (found.effective[at], found.stable[at]) == pytest.approx(rank(own[name]), rel=1e-6)
    (up,) = (part for part in overlap.modules() if part.name == "up")
    ups = [name for name in SHAPES if name.endswith("up")]
    assert up.ranks[1] == pytest.approx(np.mean([rank(deltas[1][name])[0] for name in ups]) / 8)


@pytest.mark.parametrize(("squares", "expected"), [([4.0, 4.0, 4.0], (3, 3)), ([0.0, 9.0], (1, 1)), ([0.0], (0, 0))])
def test_ranks_of_equal_few_and_no_directions(squares: Sequence[float], expected: tuple[float, float]) -> None:
    from rammerge.overlap import ranks_of

    assert ranks_of(squares) == pytest.approx(expected)


def test_ranks_do_not_depend_on_threads_and_name_what_is_wrong(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view, "BLOCK_ELEMENTS", 200)
    monkeypatch.setattr(view, "_LEAST_WIDTH", 4)
    family = Family.open(*models)
    one, two = (measure_ranks(family, MergeOptions(threads=threads)) for threads in (1, 2))
    assert one == two
    with pytest.raises(InputError, match=r"--memory 1MiB is too little: for 'embed.weight' \(30 x 20\)"):
        measure_ranks(family, MergeOptions(memory=1 << 20))
    broken = read(models[1]["agent0"].path)
    broken["layers.3.up"][0, 0] = math.nan
    other = write_family(tmp_path, read(models[0].path), [broken])
    with pytest.raises(InputError, match=r"agent 'agent0' has a NaN or an infinity in 'layers\.3\.up'"):
        measure_ranks(Family.open(*other), MergeOptions())


def test_all_of_it_is_kept_and_shown(overlap: Overlap) -> None:
    again = Overlap.from_json(json.loads(json.dumps(overlap.to_json())))
    assert again.to_json() == overlap.to_json()
    text = str(again)
    for said in (
        "Pairs of agents",
        "times chance",
        "Density by module",
        "Density by layer",
        "bf16 hides",
        "stable rank",
    ):
        assert said in text
