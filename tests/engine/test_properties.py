"""Contract: the algebra that the paper's definition implies for disjoint, identical, single and absent changes."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch

from rammerge.engine.blocks import Numbers
from rammerge.engine.options import MergeOptions
from rammerge.engine.passes.densities import DensityBlock
from rammerge.engine.passes.merge_block import MergeBlock
from rammerge.engine.passes.overlap import CountBlock
from rammerge.numerics.masks import MaskMode
from rammerge.rules import METHODS, resolve
from rammerge.rules.elementwise.ram import _diluted_merge
from tests.engine.models import merge, read, sparse_family, weight_bytes, write_family

SHAPES = {"embed.weight": (64, 32), "layer.weight": (32, 32), "norm.weight": (32,)}


def test_disjoint_changes_add_up_like_task_arithmetic(tmp_path: Path) -> None:
    base, (first, second) = sparse_family(SHAPES, [1.0, 1.0])
    for name in base:
        left = torch.arange(base[name].numel()).view(base[name].shape) % 2 == 0
        # Below epsilon RAM drops a change and task arithmetic keeps it: leave none of those.
        step = torch.full_like(base[name], 0.25)
        first[name] = torch.where(left, base[name] + step, base[name])
        second[name] = torch.where(left, base[name], base[name] - step)
    models = write_family(tmp_path, base, [first, second])
    ram = read(merge(*models, resolve("ram"), tmp_path / "ram").path)
    added = read(merge(*models, resolve("task_arithmetic"), tmp_path / "ta").path)
    assert all(torch.equal(ram[name], added[name]) for name in base)


def test_identical_masks_give_the_average(tmp_path: Path) -> None:
    base, (first, second) = sparse_family(SHAPES, [1.0, 1.0])
    first = {name: base[name] + 0.25 for name in base}
    second = {name: base[name] - 0.5 for name in base}
    models = write_family(tmp_path, base, [first, second])
    ram = read(merge(*models, resolve("ram_plus"), tmp_path / "ram").path)
    mean = read(merge(*models, resolve("average"), tmp_path / "mean").path)
    assert all(torch.equal(ram[name], mean[name]) for name in base)


def test_without_dilution_ram_is_task_arithmetic(tmp_path: Path) -> None:
    models = write_family(tmp_path, *sparse_family(SHAPES, [0.6, 0.8, 0.5], dtype=torch.float32))
    undiluted = {"epsilon": 0.0, "shared_exponent": 0.0}
    added = read(merge(*models, resolve("task_arithmetic"), tmp_path / "added").path)
    for name, params in (("ram", undiluted), ("ram_plus", {**undiluted, "r": 0.0})):
        ram = read(merge(*models, resolve(name, None, params), tmp_path / name).path)
        assert all(torch.equal(ram[tensor], values) for tensor, values in added.items())


def test_exponents_of_one_are_the_paper(tmp_path: Path) -> None:
    # The formula with exponents is a different one; as the paper's has the same bytes, nothing depends on which runs.
    models = write_family(tmp_path, *sparse_family(SHAPES, [0.6, 0.8, 0.5], dtype=torch.float32))
    paper = resolve("ram_plus")
    general = replace(paper, method=replace(paper.method, kernel=_diluted_merge))
    expected = read(merge(*models, paper, tmp_path / "paper").path)
    found = read(merge(*models, general, tmp_path / "general").path)
    assert all(torch.equal(found[tensor], values) for tensor, values in expected.items())


def test_a_single_agent_comes_back_without_its_small_changes(tmp_path: Path) -> None:
    base, (agent,) = sparse_family(SHAPES, [0.3])
    models = write_family(tmp_path, base, [agent])
    report = merge(*models, resolve("ram_plus"), tmp_path / "out")
    merged = read(report.path)
    for name in base:
        small = (agent[name].float() - base[name].float()).abs() <= 1e-5
        expected = torch.where(small, base[name].float(), agent[name].float())
        assert torch.equal(merged[name], expected)
    assert report.manifest.factors == {"agent0": 1.0}


def test_order_of_two_agents_does_not_matter(tmp_path: Path) -> None:
    base, agents = sparse_family(SHAPES, [0.4, 0.5])
    model, named = write_family(tmp_path, base, agents)
    forward = merge(model, named, resolve("ram_plus"), tmp_path / "forward")
    backward = merge(model, dict(reversed(named.items())), resolve("ram_plus"), tmp_path / "backward")
    assert weight_bytes(forward.path)["model.safetensors"] == weight_bytes(backward.path)["model.safetensors"]


def test_an_agent_equal_to_the_base_changes_nothing() -> None:
    base, (agent,) = sparse_family({"w": (5000,)}, [0.4])
    block = MergeBlock.of(resolve("ram_plus").bind(["agent"]), "bfloat16", "nearest")

    def run(agents: list[torch.Tensor]) -> torch.Tensor:
        numbers = Numbers([[1.2] * len(agents)], 1e-5, [0] * (len(agents) + 1), 0)
        return block(base["w"], agents, numbers.tensors())[0][0]

    assert torch.equal(run([agent["w"]]), run([agent["w"], base["w"]]))


@pytest.mark.parametrize("mode", get_args(MaskMode))
@pytest.mark.parametrize("method", METHODS)
def test_zeros_count_as_nothing(method: str, mode: MaskMode) -> None:
    # So a block may be filled up to the length that compiled code takes.
    base, agents = sparse_family({"w": (300,)}, [0.4, 0.5])
    inputs = [model["w"] for model in (base, *agents)]
    longer = [torch.cat([values, torch.zeros(77, dtype=values.dtype)]) for values in inputs]
    rows = [[0.7, 0.7], [1e-5, 1e-5], [0.1, 0.1], [1.0, 1.0]]
    arguments = Numbers(rows, 1.0 if mode == "ulp" else 1e-5, [1, 2, 3], 5).tensors()
    kernel, has_reference = METHODS[method].kernel, METHODS[method].improves_on is not None
    for function in (
        MergeBlock(kernel, has_reference, mode, "bfloat16", "nearest"),
        MergeBlock(kernel, has_reference, mode, "float16", "stochastic"),
        CountBlock(2, mode),
        DensityBlock(2),
    ):
        _, counts = function(inputs[0], inputs[1:], arguments)
        made, found = function(longer[0], longer[1:], arguments)
        assert torch.equal(found, counts)
        assert not any(values[300:].any() for values in made)


def test_unchanged_elements_keep_their_bits(tmp_path: Path) -> None:
    base, (first, second) = sparse_family(SHAPES, [0.1, 0.1])
    base["norm.weight"][:8] = -0.0
    for agent in (first, second):
        agent["norm.weight"][:8] = -0.0
    models = write_family(tmp_path, base, [first, second])
    for name in ("ram", "task_arithmetic", "ties"):
        merged = read(merge(*models, resolve(name), tmp_path / name, MergeOptions(dtype="bfloat16")).path)
        bits = merged["norm.weight"][:8].view(torch.int16)
        assert torch.equal(bits, base["norm.weight"][:8].view(torch.int16))


def test_opposite_shared_changes_cancel(tmp_path: Path) -> None:
    base = {"w": torch.ones(4)}
    models = write_family(tmp_path, base, [{"w": base["w"] + 0.5}, {"w": base["w"] - 0.5}])
    merged = read(merge(*models, resolve("ram"), tmp_path / "out").path)
    assert torch.equal(merged["w"], base["w"])
