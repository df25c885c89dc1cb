"""Running block functions on a unit whose inputs are read once: all in compiled code, or in turn on each tile."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rammerge.engine.compiling.loop import FormCall, Source, run_tiles
from rammerge.engine.eager import EagerCall
from rammerge.engine.output.chunks import Unit
from rammerge.errors import InputError
from rammerge.numerics.dtypes import DType

if TYPE_CHECKING:
    from torch import Tensor

    from rammerge.engine.running import Runner
    from rammerge.engine.session import Session
    from rammerge.engine.work import Work


def _raise(_at: int, error: InputError) -> None:
    raise error


def compute(
    session: Session,
    unit: Unit,
    works: Sequence[tuple[Runner, Work]],
    on_overflow: Callable[[int, InputError], None] = _raise,
) -> list[list[int]]:
    """Run functions on a unit, which is read once, and return the counts of each.

    Args:
        session: the inputs.
        unit: what to run them on.
        works: the functions, and their work.
        on_overflow: called with the number of a function whose result has an infinity, though no input has, and the
            error, which is raised by default. The counts of such a function have no meaning.

    Raises:
        InputError: a NaN or an infinity in an input or in a result.
    """
    dtypes = tuple(info.dtype for info in session.inputs(unit.tensor))
    begun = [runner.begin(work, unit, dtypes) for runner, work in works]
    compiled = [each for each in begun if isinstance(each, FormCall)]
    row = max(each.row for each in begun)
    if len(compiled) == len(begun):
        _run_compiled(session.reader.sources(session.rows_of(unit, row)), compiled, session, unit, row)
    else:
        _run_in_turn(session, unit, begun, dtypes, row)
    counted = [each.counts for each in begun]
    if failed := [at for at, counts in enumerate(counted) if not math.isfinite(counts[-1])]:
        session.check_finite(unit)
        for at in failed:
            on_overflow(at, session.overflow(unit))
            counted[at] = [0.0] * len(counted[at])
    return [[int(count) for count in counts[:-1]] for counts in counted]


def _run_compiled(sources: Sequence[Source], calls: Sequence[FormCall], session: Session, unit: Unit, row: int) -> None:
    """Run compiled functions on a unit, of which the sources have the whole rows."""
    whole = session.rows_of(unit, row)
    wanted = slice(unit.start - whole.start, unit.stop - whole.start)
    tile = session.reader.tile if row == 1 else session.reader.tile_of_rows(row)
    run_tiles(sources, calls, whole.start, whole.stop - whole.start, tile, wanted)


def _run_in_turn(
    session: Session, unit: Unit, begun: Sequence[FormCall | EagerCall], dtypes: Sequence[DType], row: int
) -> None:
    """Run functions one after the other on each tile. The tiles are whole rows if one of the functions needs rows."""
    for start, first, rest in session.reader.tiles(session.rows_of(unit, row), row):
        with session.lane():
            base, *members = map(session.there, [first, *rest])
            part = Unit(unit.tensor, max(unit.start, start), min(unit.stop, start + len(base)))
            inner = slice(part.start - start, part.stop - start)
            for each in begun:
                seen = slice(0, len(base)) if each.row > 1 else inner
                own, others = base[seen], [member[seen] for member in members]
                if isinstance(each, FormCall):
                    sources = [_held(dtype, values) for dtype, values in zip(dtypes, [own, *others], strict=True)]
                    _run_compiled(sources, [each], session, part, each.row)
                else:
                    each.run(start + seen.start, own, others)


def _held(dtype: DType, values: Tensor) -> Source:
    return Source(dtype, values.data_ptr())
