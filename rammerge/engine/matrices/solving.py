"""Solving whole matrices: their inner products, the method's multipliers, and the updates, in two reads of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rammerge.checkpoints.family import Family
from rammerge.checkpoints.headers import TensorInfo
from rammerge.engine.blocks import averaged
from rammerge.engine.matrices.elementwise import KernelUpdates, update_runners
from rammerge.engine.matrices.memory import matrices_of, plan_matrices
from rammerge.engine.matrices.method import Grams, MatrixMethod, Of, added
from rammerge.engine.matrices.updates import FLOAT32, UpdateFile, updates, with_updates
from rammerge.engine.matrices.view import MatrixView
from rammerge.engine.options import MergeOptions
from rammerge.engine.output.chunks import Unit
from rammerge.engine.passes.merge_block import MergeRule
from rammerge.engine.passes.statistics import Statistics
from rammerge.engine.session import Progress, Session
from rammerge.system.lazy import torch
from rammerge.system.threads import single_threaded

if TYPE_CHECKING:
    from torch import Tensor


def solve_matrices(
    family: Family,
    rule: MergeRule,
    statistics: Statistics,
    directory: Path,
    options: MergeOptions,
    progress: Callable[[Progress], None] | None = None,
) -> Family:
    """Return the family with its updates by `rule`, which are computed into `directory` but for those there already.

    `statistics` are those of the rule's passes.
    The bytes depend on inputs, rule and device; on a CPU also on its linear algebra, but not on the threads.

    Raises:
        InputError: a NaN or an infinity in an input, or too little memory.
        OSError: the disk is full or failed.
    """
    extended = with_updates(family, directory)
    with Session(family, options, progress) as session, updates(extended) as file, single_threaded():
        runners = update_runners(session, rule)
        for runner in runners.values():
            runner.settle()
        plan = plan_matrices(session, rule)
        known = file.finished()
        methods = {view.name: method for view, method in matrices_of(session, rule) if view.name not in known}
        units = [Unit(name, 0, family.base.tensors[name].numel) for name in methods]
        made = KernelUpdates(session, rule, statistics, runners, file)
        solver = _Solver(session, methods, rule.weights, file, made)
        session.run("solve matrices", units, solver.solve, threads=plan.threads, ahead=plan.threads)
    return extended


@dataclass(frozen=True)
class _Solver:
    session: Session
    methods: Mapping[str, MatrixMethod]
    weights: Sequence[float]
    file: UpdateFile
    made: KernelUpdates

    def solve(self, unit: Unit) -> None:
        method = self.methods[unit.tensor]
        view = method.view(unit.tensor, self.session.base.tensors[unit.tensor].shape)
        if method.of == "update":
            self.made.write(view.name)
        grams = self._grams(view, method.of)
        if not all(bool(torch.isfinite(gram).all()) for gram in grams.pairs.values()):
            self.session.refuse_non_finite(unit)
        solution = method.solve(grams)
        make = solution if callable(solution) else partial(_product, solution)
        del grams
        for block in view.blocks():
            # A block of what the kernel made is read before its product replaces it.
            matrices = [self._update(view, block)] if method.of == "update" else self._matrices(view, block, method.of)
            update = make(matrices)
            view.write(block, update.float().cpu(), lambda start, memory: self.file.write(view.name, start, memory))
        self.file.finish(view.name)

    def _grams(self, view: MatrixView, of: Of) -> Grams:
        pairs: dict[tuple[int, int], Tensor] = {}
        for block in view.blocks():
            matrices = self._matrices(view, block, of)
            for j, right in enumerate(matrices):
                for i, left in enumerate(matrices[: j + 1]):
                    if i != j and (of == "rows" or (of == "update" and j < len(matrices) - 1)):
                        continue
                    if (i, j) in pairs:
                        pairs[i, j].addmm_(left, right.T)
                    else:
                        pairs[i, j] = left @ right.T
        return Grams(view, pairs)

    def _matrices(self, view: MatrixView, block: slice, of: Of) -> Sequence[Tensor]:
        """Return a block of each task vector, then of the update, or of the sum of task vectors alone, in float64."""
        deltas = self._deltas(view, block)
        return [added(deltas)] if of == "sum" else [*deltas, self._update(view, block)] if of == "update" else deltas

    def _deltas(self, view: MatrixView, block: slice) -> list[Tensor]:
        """Return a block of each task vector. The difference is that of float32."""
        groups = self.session.groups
        base, *members = (self._read(info, view, block) for info in self.session.inputs(view.name))
        agents, before = averaged(base, members, groups) if groups else members, base.float()
        deltas = [(agent.float() - before).double() for agent in agents]
        for delta, weight in zip(deltas, self.weights, strict=False):
            delta *= weight
        return deltas

    def _update(self, view: MatrixView, block: slice) -> Tensor:
        stored = view.read(FLOAT32, block, lambda start, memory: self.file.read(view.name, start, memory))
        return stored.to(self.session.device).double()

    def _read(self, info: TensorInfo, view: MatrixView, block: slice) -> Tensor:
        files = self.session.files
        stored = view.read(info.dtype, block, lambda start, memory: files.read(info, start, memory))
        return stored.to(self.session.device)


def _product(multipliers: Sequence[Tensor], matrices: Sequence[Tensor]) -> Tensor:
    update = multipliers[0] @ matrices[0]
    for multiplier, matrix in zip(multipliers[1:], matrices[1:], strict=True):
        update.addmm_(multiplier, matrix)
    return update
