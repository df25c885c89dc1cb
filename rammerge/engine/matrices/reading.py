"""Reading blocks of the task vectors' matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rammerge.checkpoints.headers import TensorInfo
from rammerge.engine.blocks import averaged
from rammerge.engine.gpu import LANES
from rammerge.engine.matrices.view import MatrixView
from rammerge.engine.session import Session

if TYPE_CHECKING:
    from torch import Tensor


def task_vectors(session: Session, view: MatrixView, block: slice, weights: Sequence[float] = ()) -> list[Tensor]:
    """Return a block of each agent's task vector times its weight, if there are any, in float64.

    The difference is that of float32.
    """
    groups = session.groups
    if keeps_whole(session, view):
        base, *members = (view.part(elements, block) for elements in session.reader.whole(view.name))
    else:
        base, *members = (_read(session, info, view, block) for info in session.inputs(view.name))
    agents, before = averaged(base, members, groups) if groups else members, base.float()
    deltas = [(agent.float() - before).double() for agent in agents]
    for delta, weight in zip(deltas, weights, strict=False):
        delta *= weight
    return deltas


def keeps_whole(session: Session, view: MatrixView) -> bool:
    """Return whether a tensor is read once and stays on the GPU while it is solved: if that is a small part of it."""
    return session.room is not None and LANES * stored_bytes(session, view) <= session.room.nbytes // 4


def stored_bytes(session: Session, view: MatrixView) -> int:
    """Return the bytes of a tensor in all inputs."""
    return sum(info.nbytes for info in session.inputs(view.name))


def _read(session: Session, info: TensorInfo, view: MatrixView, block: slice) -> Tensor:
    stored = view.read(info.dtype, block, lambda start, memory: session.files.read(info, start, memory))
    return stored.to(session.device)
