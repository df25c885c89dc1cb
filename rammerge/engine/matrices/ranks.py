"""The ranks of task vectors, from the inner products of their short sides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rammerge.checkpoints.family import Family
from rammerge.engine.matrices.memory import block_bytes, share_out
from rammerge.engine.matrices.reading import task_vectors
from rammerge.engine.matrices.view import MatrixView
from rammerge.engine.options import MergeOptions
from rammerge.engine.output.chunks import Unit
from rammerge.engine.progress import OnProgress
from rammerge.engine.session import Session
from rammerge.overlap import MatrixRanks, Ranks, ranks_of
from rammerge.system.lazy import torch
from rammerge.system.threads import single_threaded

if TYPE_CHECKING:
    from torch import Tensor

# What finding eigenvalues takes besides the matrix: a copy, and room to work.
_WORKING = 2


def measure_ranks(family: Family, options: MergeOptions, progress: OnProgress | None = None) -> Ranks:
    """Measure the ranks of each agent's task vector in each matrix. Memory holds small squares and a block.

    Raises:
        InputError: an input has a NaN or an infinity, or too little memory.
    """
    with Session(family, options, progress) as session, single_threaded():
        shapes = {name: session.base.tensors[name].shape for name in session.floats}
        views = {name: MatrixView(name, *shape) for name, shape in shapes.items() if len(shape) == 2 and min(shape) > 1}
        squares = len(session.agents) + _WORKING
        plan = share_out(session, {view: block_bytes(view, session, squares) for view in views.values()})
        found: dict[str, MatrixRanks] = {}

        def measure(unit: Unit) -> None:
            with session.lane():
                found[unit.tensor] = _ranks(session, unit, views[unit.tensor])

        units = [Unit(name, 0, session.base.tensors[name].numel) for name in views]
        session.run("measure ranks", units, measure, threads=plan.threads, ahead=plan.threads)
        return Ranks(tuple(session.agents), {name: found[name] for name in views})


def _ranks(session: Session, unit: Unit, view: MatrixView) -> MatrixRanks:
    grams: list[Tensor] = []
    for block in view.blocks():
        for at, matrix in enumerate(task_vectors(session, view, block)):
            if at < len(grams):
                grams[at].addmm_(matrix, matrix.T)
            else:
                grams.append(matrix @ matrix.T)
    if not all(bool(torch.isfinite(gram).all()) for gram in grams):
        session.refuse_non_finite(unit)
    found = [ranks_of(torch.linalg.eigvalsh(gram).tolist()) for gram in grams]
    return MatrixRanks(view.short, tuple(effective for effective, _ in found), tuple(stable for _, stable in found))
