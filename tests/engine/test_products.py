"""Contract: inner products of task vectors are those of float64, with the same bits however the work is cut and run.

`inspect` reports their cosines beside the overlap, which says nothing about directions.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rammerge.checkpoints.family import Family
from rammerge.engine import memory, running
from rammerge.engine.compiling.build import build
from rammerge.engine.compiling.signature import Signature
from rammerge.engine.options import MergeOptions
from rammerge.engine.passes.measuring import measure, measure_overlap, runners_for
from rammerge.engine.passes.overlap import CountBlock
from rammerge.engine.passes.products import InnerProducts
from rammerge.engine.session import Session
from rammerge.engine.sums import GRAIN, grain_sums
from rammerge.numerics.dtypes import DTYPES
from rammerge.overlap import Gram, Overlap
from rammerge.system.toolchain import compiler
from tests.engine.models import Models, sparse_family, write_family

# Several blocks and grains, a part of a grain, one element, and none.
SHAPES = {"embed.weight": (700, 64), "layer.weight": (300, 200), "layer.bias": (300,), "scalar": (), "none": (0, 4)}
BFLOAT16, FLOAT32 = DTYPES["bfloat16"], DTYPES["float32"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    base, agents = sparse_family(SHAPES, [0.05, 0.4, 1.0])
    agents[1] = {name: values.float() * 1.001 for name, values in agents[1].items()}
    agents[2]["layer.bias"] = base["layer.bias"]
    return write_family(tmp_path_factory.mktemp("family"), base, agents)


def inner_products(models: Models, **options: Any) -> Gram:
    wanted = InnerProducts()
    with Session(Family.open(*models), MergeOptions(**options)) as session:
        runners = runners_for(session, [wanted])
        for runner in runners.values():
            runner.settle()
        return measure(session, runners)[wanted]


def test_against_float64(tmp_path: Path) -> None:
    base, agents = sparse_family(SHAPES, [0.3, 0.6], seed=4)
    gram = inner_products(write_family(tmp_path, base, agents))
    deltas = [{name: (agent[name].float() - base[name].float()).double() for name in base} for agent in agents]

    def product(left: int, right: int, names: list[str]) -> float:
        return math.fsum(x for name in names for x in (deltas[left][name] * deltas[right][name]).flatten().tolist())

    for names in ([name] for name in base):
        expected = [[product(i, j, names) for j in range(2)] for i in range(2)]
        np.testing.assert_allclose(gram.matrix(names[0]), expected, rtol=1e-12, atol=1e-18)
    expected = [[product(i, j, list(base)) for j in range(2)] for i in range(2)]
    np.testing.assert_allclose(gram.matrix(), expected, rtol=1e-12)


def test_the_bits_are_those_of_any_cut(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = inner_products(models, threads=1)
    assert inner_products(models, threads=5) == expected
    beside_counts = measure_overlap(Family.open(*models), densities=False)
    assert beside_counts.gram == expected
    monkeypatch.setattr(memory, "DEFAULT_BLOCK", memory.MIN_BLOCK)
    monkeypatch.setattr(running, "EAGER_ELEMENTS", 1000)
    assert inner_products(models, threads=2) == expected


@pytest.mark.skipif(compiler() is None, reason="compiles C++")
@pytest.mark.usefixtures("compiled_here")
def test_compiled_and_eager_have_the_same_bits(models: Models) -> None:
    eager = inner_products(models, compile="never")
    assert inner_products(models, compile="always") == eager


@pytest.mark.skipif(compiler() is None, reason="compiles C++")
def test_counting_and_multiplying_compile_into_one_loop(tmp_path: Path) -> None:
    signature = Signature(CountBlock(3, "abs", products=True), BFLOAT16, (BFLOAT16, FLOAT32, BFLOAT16), 1)
    build(signature, tmp_path / "form.so")  # it compares the bytes


def test_a_grain_is_added_in_the_order_that_is_documented() -> None:
    values = torch.randn(GRAIN, generator=torch.Generator().manual_seed(0)).double()
    lanes = [0.0] * 16
    for group in values.view(16, 64, 16).tolist():
        added = [0.0] * 16
        for row in group:
            added = [so_far + value for so_far, value in zip(added, row, strict=True)]
        lanes = [so_far + value for so_far, value in zip(lanes, added, strict=True)]
    while len(lanes) > 1:
        half = len(lanes) // 2
        lanes = [lanes[at] + lanes[at + half] for at in range(half)]
    assert grain_sums(values[None]).tolist() == [lanes]


def test_overlap_tells_directions(tmp_path: Path) -> None:
    # All agents change the same elements: the overlap is the same, the directions are not.
    base = {"w": torch.zeros(4, 8)}
    step = torch.full((4, 8), 0.25)
    turned = step * torch.tensor([1.0, -1.0]).repeat(4)
    models = write_family(tmp_path, base, [{"w": step}, {"w": turned}, {"w": -3 * step}])
    overlap = measure_overlap(Family.open(*models))
    assert overlap.gram is not None
    cosines = overlap.gram.cosines()
    np.testing.assert_allclose(np.array(cosines), [[1, 0, -1], [0, 1, 0], [-1, 0, 1]], atol=1e-15)
    assert "Cosine of the task vectors" in str(overlap)
    content = json.loads(json.dumps(overlap.to_json()))
    assert content["cosine"] == cosines
    assert Overlap.from_json(content).to_json() == overlap.to_json()


def test_a_vector_of_zeros_has_no_direction() -> None:
    gram = Gram(("one", "other"), {"changed": [4.0, 0.0, 0.0], "small": [1e-300, 5e-301, 1e-300]})
    assert gram.cosines("changed") == [[1.0, None], [None, None]]
    assert gram.cosines("small")[0][1] == pytest.approx(0.5)
