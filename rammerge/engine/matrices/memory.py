"""How many matrices are solved at once, and how much memory that takes."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rammerge.activations.activations import Activations
from rammerge.engine.gpu import LANES, Room, load_linear_algebra
from rammerge.engine.matrices.method import MatrixMethod, method_for
from rammerge.engine.matrices.moments import CHUNK_TOKENS
from rammerge.engine.matrices.reading import keeps_whole, stored_bytes
from rammerge.engine.matrices.view import MatrixView
from rammerge.engine.memory import memory_limit, resident_bytes
from rammerge.engine.options import most_threads
from rammerge.engine.passes.merge_block import MergeRule
from rammerge.engine.session import Session
from rammerge.errors import InputError

_FLOAT64 = 8
# What linear algebra keeps for itself in each thread, and the interpreter's own growth.
_LIBRARY_BYTES = 24 << 20


@dataclass(frozen=True)
class MatrixPlan:
    """How the solving of matrices is shared out.

    Attributes:
        threads: how many matrices are solved at once.
        forecast: the process's peak resident bytes.
    """

    threads: int
    forecast: int


def plan_matrices(session: Session, rule: MergeRule, activations: Activations | None = None) -> MatrixPlan:
    """Choose how many matrices are solved at once so that the process stays below its memory limit.

    What runs element by element before them is in the session's own plan. Before activations are recorded, they count
    as many.

    Raises:
        InputError: not even one fits; the message says how much memory is enough.
    """
    importlib.import_module("torch")  # now, so that what the process holds already counts its memory
    found = list(matrices_of(session, rule))
    tokens = min(CHUNK_TOKENS, activations.tokens) if activations else CHUNK_TOKENS
    needs = {view: _bytes(view, session, method, tokens) for view, method in found}
    before = session.plan.forecast if any(method.of == "update" for _, method in found) else 0
    return share_out(session, needs, before)


def share_out(session: Session, needs: Mapping[MatrixView, int], before: int = 0) -> MatrixPlan:
    """Choose how many matrices are worked on at once.

    Args:
        session: its options say how much memory there is.
        needs: matrix -> bytes that a thread needs for it.
        before: peak resident bytes of what runs before.

    Raises:
        InputError: not even one fits; the message says how much memory is enough.
    """
    importlib.import_module("torch")  # now, so that what the process holds already counts its memory
    if session.room is not None:
        return _share_out_gpu(session, session.room, needs)
    need = max(needs.values(), default=0)
    resident, limit = max(before, resident_bytes()), memory_limit(session.options)
    threads = min(most_threads(session.options), max(1, len(needs)))
    least = min(threads, session.options.threads or 1)
    while resident + threads * need > limit and threads > least:
        threads -= 1
    forecast = resident + threads * need
    if needs and forecast > limit:
        worst = max(needs, key=lambda view: needs[view])
        raise InputError(
            f"--memory {limit / 2**20:.0f}MiB is too little: for '{worst.name}' ({worst.rows} x {worst.columns}) this "
            f"needs {-(-forecast // (1 << 20))}MiB; give that, or do without whole matrices"
        )
    return MatrixPlan(threads, forecast)


def _share_out_gpu(session: Session, room: Room, needs: Mapping[MatrixView, int]) -> MatrixPlan:
    """Choose how many matrices are worked on at once on a GPU. This process only holds what is read and written."""
    need = max(needs.values(), default=0)
    threads = max(1, min(most_threads(session.options), LANES, len(needs), room.nbytes // max(1, need)))
    if need > room.nbytes:
        worst = max(needs, key=lambda view: needs[view])
        raise room.refuse(need, f"'{worst.name}' ({worst.rows} x {worst.columns})")
    load_linear_algebra(room.device)
    return MatrixPlan(threads, session.plan.forecast)


def matrices_of(session: Session, rule: MergeRule) -> Iterator[tuple[MatrixView, MatrixMethod]]:
    """Yield the matrices that are merged as such, and how, as the rule of each tensor says."""
    for name in session.floats:
        part, info = rule.part(name), session.base.tensors[name]
        if part.copied is None and (method := method_for(part.matrices, name, info.shape)):
            yield method.view(name, info.shape), method


def _bytes(view: MatrixView, session: Session, method: MatrixMethod, tokens: int) -> int:
    agents = len(session.agents)
    # What each task vector adds to the outputs, and a block of the inputs, as stored and in float64.
    seen = tokens * (agents * view.short * _FLOAT64 + view.width * (4 + 2 * _FLOAT64)) if method.needs_moments else 0
    return block_bytes(view, session, method.matrices(agents, view)) + seen


def block_bytes(view: MatrixView, session: Session, squares: float) -> int:
    """Return what a thread needs to read a matrix in blocks and to hold some float64 matrices [short, short]."""
    stored = sum(info.dtype.itemsize for info in session.inputs(view.name))
    # Elements as they are stored, each task vector in float64, and two more such blocks on the way there or back.
    block = view.short * view.width * (stored + (len(session.agents) + 2) * _FLOAT64)
    whole = stored_bytes(session, view) if keeps_whole(session, view) else 0
    return int(squares * view.short**2 * _FLOAT64) + block + whole + _LIBRARY_BYTES
