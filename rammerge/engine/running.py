"""Running a block function on a unit: compiled where that pays off, eagerly elsewhere."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from rammerge.engine.blocks import BlockFunction
from rammerge.engine.buffers import as_tensor, pages
from rammerge.engine.compiling import cache
from rammerge.engine.compiling.cache import Build
from rammerge.engine.compiling.loop import Form, FormCall, scratch_bytes
from rammerge.engine.compiling.signature import Signature
from rammerge.engine.eager import EagerCall
from rammerge.engine.gpu import element_bytes
from rammerge.engine.memory import EAGER_BYTES, EAGER_ELEMENTS
from rammerge.engine.session import Session
from rammerge.engine.sums import GRAIN
from rammerge.errors import RammergeError
from rammerge.numerics.dtypes import DType

if TYPE_CHECKING:
    from rammerge.engine.output.chunks import Unit
    from rammerge.engine.work import Work

# Eager code takes about two seconds for this many elements, as long as the process that compiles.
COMPILE_FROM_ELEMENTS = 1 << 26

# The dtypes of the base and of each member.
Dtypes = tuple[DType, ...]
# What tells runners apart: a block function, the height of its coefficients, and whether it needs whole rows.
RunnerKey = tuple[BlockFunction, int, bool]


@dataclass
class Runner:
    """A block function that runs in compiled form if there is one, and eagerly otherwise. The bytes are the same.

    Attributes:
        session: the merge that it is a part of.
        function: the block function.
        height: the number of rows of coefficients that it reads.
        by_rows: whether it needs whole rows of a tensor.
        tensors: what it is run on; None for all float tensors.
    """

    session: Session
    function: BlockFunction
    height: int
    by_rows: bool = False
    tensors: Sequence[str] | None = None
    _compiled: dict[Dtypes, Form] = field(default_factory=dict)
    _builds: dict[Dtypes, Build] = field(default_factory=dict)
    _ran_eagerly: Counter[Dtypes] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _own: threading.local = field(default_factory=threading.local)

    def __post_init__(self) -> None:
        self.session.closing.callback(self.close)
        self.session.reserve_on_gpu(element_bytes(self.function, len(self.session.agents)))
        if self.by_rows:
            self.session.need_rows()
        if self._may_compile:
            for dtypes, elements in self._work().items():
                self._prepare(dtypes, elements)
        self._load_torch_for_the_rest()

    def settle(self) -> None:
        """Wait for what is being compiled. The memory plan, which is made later, counts the code that will run."""
        for dtypes, build in self._builds.items():
            try:
                build.wait()
                self._load(dtypes)
            except RammergeError as error:
                self._note(error)
        self._builds.clear()
        self._load_torch_for_the_rest()

    def begin(self, work: Work, unit: Unit, dtypes: Dtypes) -> FormCall | EagerCall:
        """Return what runs the function on the tiles of a unit, in the calling thread."""
        form = self._compiled.get(dtypes)
        if form is None:
            with self._lock:
                self._ran_eagerly[dtypes] += unit.stop - unit.start
            return self._begin_eagerly(work, unit)
        results = self._overwritten() if work.histogram is not None else cast(Sequence[memoryview], work.results)
        row = self._row(unit)
        scratch = self._scratch(form.ranked, row) if form.ranked else None
        return FormCall(form, work.numbers, self.width + 1, results, work.histogram, work.sums, scratch, row)

    def _begin_eagerly(self, work: Work, unit: Unit) -> EagerCall:
        session, row = self.session, self._row(unit)
        # A histogram has more bins than an eager step has elements; small steps would mostly clear and add bins. A GPU
        # computes a whole tile at once.
        step = 0 if session.device != "cpu" or work.histogram is not None else EAGER_ELEMENTS
        if step and self.by_rows:
            step = max(1, EAGER_ELEMENTS // row) * row
        elif step and work.sums is not None:
            step = -(-step // GRAIN) * GRAIN
        return EagerCall(
            self.function,
            session.groups,
            unit,
            work.numbers.tensors(session.device),
            step,
            [0.0] * (self.width + 1),
            [as_tensor(each, dtype) for each, dtype in zip(work.results, self._results, strict=False)],
            work.histogram,
            work.sums,
            self.by_rows,
            row,
        )

    @property
    def width(self) -> int:
        """The number of counts that the function returns."""
        return self.function.counts(len(self.session.agents))

    def close(self) -> None:
        """Record how much ran eagerly. Once that is enough, a later run compiles."""
        if self._may_compile:
            for dtypes, elements in self._ran_eagerly.items():
                cache.count_eager(self._signature(dtypes), elements)
        self._ran_eagerly.clear()

    @property
    def _may_compile(self) -> bool:
        return self.session.device == "cpu" and self.session.options.compile != "never"

    @property
    def _results(self) -> list[DType]:
        return self.function.results(len(self.session.agents))

    def _row(self, unit: Unit) -> int:
        return self.session.row(unit.tensor) if self.by_rows else 1

    def _overwritten(self) -> list[memoryview]:
        if not hasattr(self._own, "overwritten"):
            self._own.overwritten = [pages(self.session.plan.tile * dtype.itemsize) for dtype in self._results]
        own: list[memoryview] = self._own.overwritten
        return own

    def _scratch(self, ranked: int, row: int) -> memoryview:
        needed = scratch_bytes(ranked, self.session.reader.tile_of_rows(row), row)
        if not hasattr(self._own, "scratch") or self._own.scratch.nbytes < needed:
            self._own.scratch = pages(needed)
        own: memoryview = self._own.scratch
        return own

    def _work(self) -> Counter[Dtypes]:
        """Count the elements by the dtypes in which the base and the members store them."""
        work: Counter[Dtypes] = Counter()
        for name in self.session.floats if self.tensors is None else self.tensors:
            infos = self.session.inputs(name)
            work[tuple(info.dtype for info in infos)] += infos[0].numel
        return work

    def _signature(self, dtypes: Dtypes) -> Signature:
        base, *members = dtypes
        return Signature(self.function, base, tuple(members), self.height, self.session.groups, self.by_rows)

    def _prepare(self, dtypes: Dtypes, elements: int) -> None:
        """Load the compiled form, or begin to make it if eager code would take longer."""
        large = self.session.options.compile == "always" or elements >= COMPILE_FROM_ELEMENTS
        try:
            signature = self._signature(dtypes)
            self._load(dtypes)
            again = cache.eager_elements(signature) + elements >= COMPILE_FROM_ELEMENTS
            if dtypes not in self._compiled and (large or again):
                self._builds[dtypes] = cache.start_build(signature)
        except (RammergeError, OSError) as error:
            if large:
                self._note(error)

    def _load(self, dtypes: Dtypes) -> None:
        form = cache.load(self._signature(dtypes))
        if form is not None:
            self._compiled[dtypes] = form

    def _load_torch_for_the_rest(self) -> None:
        if self._work().keys() - self._compiled.keys() - self._builds.keys():
            self.session.load_torch()
            # Values to be summed are computed in float64, and then copied side by side.
            summed = sum(dtype.itemsize for dtype in self._results if dtype.name == "float64")
            self.session.reserve(EAGER_BYTES + 2 * EAGER_ELEMENTS * summed)

    def _note(self, reason: Exception) -> None:
        note = f"{reason}, so the merge runs eagerly: the same bytes, but slower"
        if note not in self.session.notes:
            self.session.notes.append(note)
