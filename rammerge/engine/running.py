"""Running a block function on a unit: compiled where that pays off, eagerly elsewhere."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rammerge.engine.blocks import Arguments, BlockFunction, Numbers, added, averaged
from rammerge.engine.buffers import as_tensor, pages
from rammerge.engine.compiling import cache
from rammerge.engine.compiling.cache import Build
from rammerge.engine.compiling.loop import TileLoop
from rammerge.engine.compiling.signature import Signature
from rammerge.engine.memory import EAGER_BYTES, EAGER_ELEMENTS
from rammerge.engine.output.chunks import Unit
from rammerge.engine.session import Session
from rammerge.engine.sums import GRAIN, GrainSums
from rammerge.errors import RammergeError
from rammerge.numerics.dtypes import DType

if TYPE_CHECKING:
    from torch import Tensor

    from rammerge.engine.histogram import Histogram

# Eager code takes about two seconds for this many elements, as long as the process that compiles.
COMPILE_FROM_ELEMENTS = 1 << 26

# The dtypes of the base and of each member.
Dtypes = tuple[DType, ...]


@dataclass
class Runner:
    """A block function that runs in compiled form if there is one, and eagerly otherwise. The bytes are the same.

    Attributes:
        session: the merge that it is a part of.
        function: the block function.
        height: the number of rows of coefficients that it reads.
        by_rows: whether it needs whole rows of a tensor. It then runs eagerly.
        tensors: what it is run on; None for all float tensors.
    """

    session: Session
    function: BlockFunction
    height: int
    by_rows: bool = False
    tensors: Sequence[str] | None = None
    _compiled: dict[Dtypes, TileLoop] = field(default_factory=dict)
    _builds: dict[Dtypes, Build] = field(default_factory=dict)
    _ran_eagerly: Counter[Dtypes] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _own: threading.local = field(default_factory=threading.local)

    def __post_init__(self) -> None:
        self.session.closing.callback(self.close)
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

    def run(
        self,
        unit: Unit,
        numbers: Numbers,
        results: Sequence[memoryview] = (),
        histogram: Histogram | None = None,
        sums: GrainSums | None = None,
    ) -> list[int]:
        """Return the function's counts for a unit, and fill `results` with its tensors' elements.

        With a histogram the tensors are counted in it instead, and with `sums` they are summed there.

        Raises:
            InputError: a NaN or an infinity in an input or in a result.
        """
        size, dtypes = unit.stop - unit.start, tuple(info.dtype for info in self.session.inputs(unit.tensor))
        compiled = self._compiled.get(dtypes)
        if self.by_rows:
            *counts, health = self._eager_by_rows(unit, numbers, results)
        elif compiled is None:
            *counts, health = self._eager(unit, numbers, results, histogram, sums)
            with self._lock:
                self._ran_eagerly[dtypes] += size
        else:
            into, tile = self._scratch() if histogram is not None else results, self.session.plan.tile
            sources = self.session.sources(unit)
            *counts, health = compiled(sources, numbers, size, tile, self.width + 1, into, histogram, sums)
        if not math.isfinite(health):
            self.session.refuse_non_finite(unit)
        return [int(count) for count in counts]

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
        return self.session.device == "cpu" and self.session.options.compile != "never" and not self.by_rows

    @property
    def _results(self) -> list[DType]:
        return self.function.results(len(self.session.agents))

    def _scratch(self) -> list[memoryview]:
        if not hasattr(self._own, "scratch"):
            self._own.scratch = [pages(self.session.plan.tile * dtype.itemsize) for dtype in self._results]
        own: list[memoryview] = self._own.scratch
        return own

    def _eager(
        self,
        unit: Unit,
        numbers: Numbers,
        results: Sequence[memoryview],
        histogram: Histogram | None,
        sums: GrainSums | None,
    ) -> list[float]:
        total = [0.0] * (self.width + 1)
        arguments = numbers.tensors(self.session.device)
        filled = [as_tensor(memory, dtype) for memory, dtype in zip(results, self._results, strict=False)]
        for start, base, members in self.session.tiles(unit):
            # A histogram has more bins than an eager step has elements; small steps would mostly clear and add bins.
            small = self.session.device == "cpu" and histogram is None
            step = EAGER_ELEMENTS if small else base.shape[0]
            step = step if sums is None else -(-step // GRAIN) * GRAIN
            for at in range(0, base.shape[0], step):
                part, place = slice(at, at + step), start - unit.start + at
                made, counts = self._call(base[part], [member[part] for member in members], arguments.at(place))
                for result, values in zip(filled, made, strict=False):
                    result[place : place + len(values)] = values
                total = added(total, counts.tolist())
                if sums is not None:
                    sums.add(made)
                if histogram is not None and math.isfinite(total[-1]):
                    histogram.add(made)
        return total

    def _eager_by_rows(self, unit: Unit, numbers: Numbers, results: Sequence[memoryview]) -> list[float]:
        """Compute the rows that a unit is part of, and keep the unit's elements."""
        sums, row = [0.0] * (self.width + 1), self.session.row(unit.tensor)
        arguments = numbers.tensors(self.session.device)
        filled = [as_tensor(memory, dtype) for memory, dtype in zip(results, self._results, strict=True)]
        rows = Unit(unit.tensor, unit.start // row * row, -(-unit.stop // row) * row)
        step = max(1, EAGER_ELEMENTS // row) * row
        for start, base, members in self.session.tiles(rows, row):
            for at in range(0, base.shape[0], step):
                part, first = slice(at, at + step), start + at
                last = min(first + step, start + base.shape[0], unit.stop)
                wanted = slice(max(unit.start, first) - first, last - first)
                place = arguments.at(first - unit.start, row, wanted)
                made, counts = self._call(base[part], [member[part] for member in members], place)
                for result, values in zip(filled, made, strict=True):
                    result[first - unit.start + wanted.start : last - unit.start] = values
                sums = added(sums, counts.tolist())
        return sums

    def _call(self, base: Tensor, members: Sequence[Tensor], arguments: Arguments) -> tuple[list[Tensor], Tensor]:
        groups = self.session.groups
        return self.function(base, averaged(base, members, groups) if groups else members, arguments)

    def _work(self) -> Counter[Dtypes]:
        """Count the elements by the dtypes in which the base and the members store them."""
        work: Counter[Dtypes] = Counter()
        for name in self.session.floats if self.tensors is None else self.tensors:
            infos = self.session.inputs(name)
            work[tuple(info.dtype for info in infos)] += infos[0].numel
        return work

    def _signature(self, dtypes: Dtypes) -> Signature:
        base, *members = dtypes
        return Signature(self.function, base, tuple(members), self.height, self.session.groups)

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
