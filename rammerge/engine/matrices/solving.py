"""Solving whole matrices: their inner products, the method's multipliers, and the updates, in two reads of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rammerge.checkpoints.family import Family
from rammerge.checkpoints.headers import TensorInfo
from rammerge.engine.blocks import averaged
from rammerge.engine.matrices.memory import matrices_of, plan_matrices
from rammerge.engine.matrices.method import Grams, MatrixMethod, added
from rammerge.engine.matrices.updates import UpdateFile, updates, with_updates
from rammerge.engine.matrices.view import MatrixView
from rammerge.engine.options import MergeOptions
from rammerge.engine.output.chunks import Unit
from rammerge.engine.passes.merge_block import MergeRule
from rammerge.engine.session import Progress, Session
from rammerge.system.lazy import torch
from rammerge.system.threads import single_threaded

if TYPE_CHECKING:
    from torch import Tensor


def solve_matrices(
    family: Family,
    rule: MergeRule,
    directory: Path,
    options: MergeOptions,
    progress: Callable[[Progress], None] | None = None,
) -> Family:
    """Return the family with its updates by `rule`, which are computed into `directory` but for those there already.

    The bytes depend on inputs, rule and device; on a CPU also on its linear algebra, but not on the threads.

    Raises:
        InputError: a NaN or an infinity in an input, or too little memory.
        OSError: the disk is full or failed.
    """
    extended = with_updates(family, directory)
    with Session(family, options, progress) as session, updates(extended) as file, single_threaded():
        plan = plan_matrices(family, options, rule)
        known = file.finished()
        methods = {view.name: method for view, method in matrices_of(family, rule) if view.name not in known}
        units = [Unit(name, 0, family.base.tensors[name].numel) for name in methods]
        solver = _Solver(session, methods, rule.weights, file)
        session.run("solve matrices", units, solver.solve, threads=plan.threads, ahead=plan.threads)
    return extended


@dataclass(frozen=True)
class _Solver:
    session: Session
    methods: Mapping[str, MatrixMethod]
    weights: Sequence[float]
    file: UpdateFile

    def solve(self, unit: Unit) -> None:
        view = MatrixView(unit.tensor, *self.session.base.tensors[unit.tensor].shape)
        grams = self._grams(view)
        if not all(bool(torch.isfinite(gram).all()) for gram in grams.pairs.values()):
            self.session.refuse_non_finite(unit)
        multipliers = list(self.methods[view.name].solve(grams))
        del grams
        for block, matrices in self._blocks(view):
            update = multipliers[0] @ matrices[0]
            for multiplier, matrix in zip(multipliers[1:], matrices[1:], strict=True):
                update.addmm_(multiplier, matrix)
            view.write(block, update.float().cpu(), lambda start, memory: self.file.write(view.name, start, memory))
        self.file.finish(view.name)

    def _grams(self, view: MatrixView) -> Grams:
        pairs: dict[tuple[int, int], Tensor] = {}
        for _, matrices in self._blocks(view):
            for j, right in enumerate(matrices):
                for i, left in enumerate(matrices[: j + 1]):
                    if (i, j) in pairs:
                        pairs[i, j].addmm_(left, right.T)
                    else:
                        pairs[i, j] = left @ right.T
        return Grams(view, pairs)

    def _blocks(self, view: MatrixView) -> Iterator[tuple[slice, Sequence[Tensor]]]:
        """Yield blocks of each task vector, or of their sum, in float64. The difference is that of float32."""
        infos, groups = self.session.inputs(view.name), self.session.groups
        for block in view.blocks():
            base, *members = (self._read(info, view, block) for info in infos)
            agents, before = averaged(base, members, groups) if groups else members, base.float()
            deltas = [(agent.float() - before).double() for agent in agents]
            for delta, weight in zip(deltas, self.weights, strict=False):
                delta *= weight
            yield block, [added(deltas)] if self.methods[view.name].of_sum else deltas

    def _read(self, info: TensorInfo, view: MatrixView, block: slice) -> Tensor:
        files = self.session.files
        stored = view.read(info.dtype, block, lambda start, memory: files.read(info, start, memory))
        return stored.to(self.session.device)
