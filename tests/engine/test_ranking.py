"""Contract: magnitudes are ranked exactly, in one read where few are not the first of their bin, in two elsewhere.

Threads, blocks and the way of counting change nothing.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch

from rammerge.checkpoints.family import Family
from rammerge.engine import histogram, memory
from rammerge.engine.options import Compile, MergeOptions
from rammerge.engine.passes.kept_range import KeptRange
from rammerge.engine.passes.magnitudes import KeptMagnitudes, all_but, at_least
from rammerge.engine.passes.measuring import measure, runners_for
from rammerge.engine.passes.squares import SelectedSquares
from rammerge.engine.passes.statistics import Pass
from rammerge.engine.running import Runner
from rammerge.engine.session import Session
from rammerge.errors import InputError
from rammerge.rules import resolve
from tests.engine.models import Models, Tensors, write_family
from tests.engine.test_together import bytes_read, nbytes
from tests.fixtures.waiting import no_hanging

R = TypeVar("R")
SHAPES = {"wide": (70, 900), "bias": (300,), "empty": (0, 4), "one": (1,)}
SHARE = 0.75
(NAMED,) = resolve("dare_magnitude").bind(["one", "other"]).passes
assert isinstance(NAMED, KeptMagnitudes)
BY_TENSOR = replace(NAMED, share=SHARE, rank=all_but)


def drawn(dtype: torch.dtype) -> tuple[Tensors, list[Tensors]]:
    """A base and agents that changed half of the elements and all. Some changes are large beside small weights."""
    generator = torch.Generator().manual_seed(3)
    base = {name: (torch.randn(shape, generator=generator) * 0.02).to(dtype) for name, shape in SHAPES.items()}

    def agent(density: float) -> Tensors:
        changed = {name: torch.rand(values.shape, generator=generator) < density for name, values in base.items()}
        return {
            name: (values.float() + changed[name] * torch.randn(values.shape, generator=generator) * 1e-3).to(dtype)
            for name, values in base.items()
        }

    return base, [agent(0.5), agent(1.0)]


def measured(models: Models, wanted: Pass[R], options: MergeOptions) -> R:
    with Session(Family.open(*models), options) as session:
        runners = runners_for(session, [wanted])
        for runner in runners.values():
            runner.settle()
        return measure(session, runners)[wanted]


def sorted_out(base: Tensors, agents: list[Tensors]) -> dict[str | None, list[float]]:
    """Sort, and drop the first: of each tensor, and of the model."""

    def least(names: list[str], agent: Tensors) -> float:
        changes = torch.cat([(agent[name].float() - base[name].float()).flatten() for name in names])
        return float(changes.abs().sort().values[int(len(changes) * SHARE)]) if len(changes) else 0.0

    groups: dict[str | None, list[str]] = {None: list(base), **{name: [name] for name in base}}
    return {group: [least(names, agent) for agent in agents] for group, names in groups.items()}


@pytest.mark.usefixtures("compiled_here")
@pytest.mark.parametrize("compiled", ["never", "always"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_rank_is_that_of_sorting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, compiled: Compile
) -> None:
    monkeypatch.setattr(memory, "DEFAULT_BLOCK", memory.MIN_BLOCK)
    base, agents = drawn(dtype)
    models, expected = write_family(tmp_path, base, agents), sorted_out(base, agents)
    options = MergeOptions(compile=compiled, threads=3)
    for room in (histogram.ROOM, 1 << 11, 0):  # enough for all others, for some tensors, for none
        monkeypatch.setattr(histogram, "ROOM", room)
        assert measured(models, BY_TENSOR, options) == {name: expected[name] for name in base}
        assert measured(models, replace(BY_TENSOR, by_tensor=False), options) == {None: expected[None]}


@pytest.mark.parametrize("room", [histogram.ROOM, 1 << 11, 0])
def test_a_range_is_both_its_ends_from_one_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    monkeypatch.setattr(histogram, "ROOM", room)
    models, options = write_family(tmp_path, *drawn(torch.bfloat16)), MergeOptions(compile="never")
    least, most = BY_TENSOR, replace(BY_TENSOR, share=0.01, rank=at_least)
    ends = [measured(models, end, options) for end in (least, most)]
    begun, begin = [], Runner.begin

    def begin_and_note(*arguments: Any) -> Any:
        begun.append(arguments)
        return begin(*arguments)

    monkeypatch.setattr(Runner, "begin", begin_and_note)
    found = measured(models, KeptRange(least, most), options)
    assert found == {name: (ends[0][name], ends[1][name]) for name in SHAPES}
    once = len(begun)
    begun.clear()
    measured(models, least, options)
    assert once == len(begun) or not room, "where the first count has told apart what both ends need, it is the last"


def test_a_pass_whose_need_nobody_asks_for_is_refused(tmp_path: Path) -> None:
    models = write_family(tmp_path, *drawn(torch.bfloat16))
    with no_hanging(), pytest.raises(InputError, match="'squares' needs 'magnitudes', which the method does not ask"):
        measured(models, SelectedSquares(BY_TENSOR.ranked, BY_TENSOR), MergeOptions(compile="never"))


@pytest.mark.parametrize(("dtype", "reads"), [(torch.bfloat16, 1), (torch.float32, 2)])
def test_how_often_the_inputs_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, reads: int
) -> None:
    monkeypatch.setattr(histogram, "ROOM", 1 << 14)
    models = write_family(tmp_path, *drawn(dtype))
    measured(models, BY_TENSOR, MergeOptions(compile="never"))  # the first imports
    before = bytes_read()
    measured(models, BY_TENSOR, MergeOptions(compile="never"))
    assert reads <= (bytes_read() - before) / nbytes(Family.open(*models)) < reads + 0.1
