"""How a block function is run on a unit: compiled or eager, with its compiler at work meanwhile."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from subprocess import Popen
from typing import TYPE_CHECKING

from rammerge.engine.blocks import BlockFunction, Numbers, added
from rammerge.engine.buffers import as_tensor, pages
from rammerge.engine.compiling import cache
from rammerge.engine.compiling.loop import LEAST_ELEMENTS, TileLoop
from rammerge.engine.memory import EAGER_ELEMENTS
from rammerge.engine.options import most_threads
from rammerge.engine.output.chunks import Unit
from rammerge.engine.session import Session
from rammerge.numerics.dtypes import DType

if TYPE_CHECKING:
    from rammerge.engine.histogram import Histogram

# Below this much work eager code is done before a compiler would be; above, it begins and is overtaken.
COMPILE_FROM_ELEMENTS = 1_000_000_000

# The base's and each agent's.
Dtypes = tuple[DType, ...]


@dataclass
class Runner:
    """A block function that runs compiled where a compiled form is at hand, else eagerly; same bytes either way.

    Attributes:
        session: what it runs in.
        function: the block function.
        height: how many rows of coefficients it reads.
    """

    session: Session
    function: BlockFunction
    height: int
    _compiled: dict[Dtypes, TileLoop] = field(default_factory=dict)
    _builds: dict[Dtypes, Popen[bytes]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _own: threading.local = field(default_factory=threading.local)

    def __post_init__(self) -> None:
        self.session.closing.callback(self.close)
        work = self._work()
        if self._may_compile:
            for dtypes in work:
                runner = cache.load(self._signature(dtypes), most_threads(self.session.options))
                if runner is not None:
                    self._compiled[dtypes] = runner
        if work.keys() - self._compiled:
            self.session.load_torch()

    def compile(self) -> None:
        """Start to compile what is not there yet, where the work repays it; until that is done it is run eagerly."""
        if not self._may_compile:
            return
        always = self.session.options.compile == "always"
        for dtypes, elements in self._work().items():
            if dtypes not in self._compiled and (always or elements >= COMPILE_FROM_ELEMENTS):
                self._start(dtypes)

    def run(
        self, unit: Unit, numbers: Numbers, results: Sequence[memoryview] = (), histogram: Histogram | None = None
    ) -> list[int]:
        """Return the function's counts for a unit, and fill `results` with its tensors' elements.

        With a histogram the tensors are counted in it instead.

        Raises:
            InputError: a NaN or an infinity in an input or in a result.
        """
        size, runner = unit.stop - unit.start, self._runner(unit)
        if runner is None:
            *counts, health = self._eager(unit, numbers, results, histogram)
        else:
            into, tile = self._scratch() if histogram is not None else results, self.session.plan.tile
            sources = self.session.sources(unit)
            *counts, health = runner(sources, numbers, size, tile, self.width + 1, into, histogram)
        if not math.isfinite(health):
            self.session.refuse_non_finite(unit)
        return [int(count) for count in counts]

    @property
    def width(self) -> int:
        """How many counts the function makes."""
        return self.function.counts(len(self.session.agents))

    def close(self) -> None:
        """Stop compilers that are still at work."""
        for process in self._builds.values():
            process.kill()
            process.communicate()

    @property
    def _may_compile(self) -> bool:
        wanted = self.session.device == "cpu" and self.session.options.compile != "never"
        return wanted and cache.is_portable(self.function)

    @property
    def _results(self) -> list[DType]:
        return self.function.results(len(self.session.agents))

    def _scratch(self) -> list[memoryview]:
        if not hasattr(self._own, "scratch"):
            room = self.session.plan.tile + LEAST_ELEMENTS
            self._own.scratch = [pages(room * dtype.itemsize) for dtype in self._results]
        own: list[memoryview] = self._own.scratch
        return own

    def _eager(
        self, unit: Unit, numbers: Numbers, results: Sequence[memoryview], histogram: Histogram | None
    ) -> list[float]:
        total = [0.0] * (self.width + 1)
        arguments = numbers.tensors(self.session.device)
        filled = [as_tensor(memory, dtype) for memory, dtype in zip(results, self._results, strict=False)]
        for start, base, agents in self.session.tiles(unit):
            # A histogram's bins are more than the elements that are best computed at once: the work would be clearing
            # and adding them.
            small = self.session.device == "cpu" and histogram is None
            step = EAGER_ELEMENTS if small else base.shape[0]
            for at in range(0, base.shape[0], step):
                part, place = slice(at, at + step), start - unit.start + at
                made, counts = self.function(base[part], [agent[part] for agent in agents], arguments.at(place))
                for result, values in zip(filled, made, strict=False):
                    result[place : place + len(values)] = values
                total = added(total, counts.tolist())
                if histogram is not None and math.isfinite(total[-1]):
                    histogram.add(made)
        return total

    def _runner(self, unit: Unit) -> TileLoop | None:
        dtypes = tuple(info.dtype for info in self.session.inputs(unit.tensor))
        if dtypes in self._builds:
            self._collect(dtypes)
        return self._compiled.get(dtypes)

    def _work(self) -> Counter[Dtypes]:
        """Count the elements by the dtypes in which the base and the agents store them."""
        work: Counter[Dtypes] = Counter()
        for name in self.session.floats:
            infos = self.session.inputs(name)
            work[tuple(info.dtype for info in infos)] += infos[0].numel
        return work

    def _signature(self, dtypes: Dtypes) -> cache.Signature:
        base, *agents = dtypes
        return cache.Signature(self.function, base, tuple(agents), self.height)

    def _start(self, dtypes: Dtypes) -> None:
        if cache.compiler() is None:
            self._note("no C++ compiler found (g++ or clang++), so the merge runs eagerly: the same bytes, but slower")
            return
        try:
            self._builds[dtypes] = cache.start_build(self._signature(dtypes))
        except OSError as error:
            self._note(f"compiling failed ({error}), so the merge runs eagerly: the same bytes, but slower")

    def _collect(self, dtypes: Dtypes) -> None:
        with self._lock:
            process = self._builds.get(dtypes)
            if process is not None and self.session.options.compile == "always":
                process.wait()
            if process is None or process.poll() is None:
                return
            del self._builds[dtypes]
            errors = process.communicate()[1].decode(errors="replace").strip().splitlines()
            done = process.returncode == 0
            runner = cache.load(self._signature(dtypes), most_threads(self.session.options)) if done else None
            if runner is not None:
                self._compiled[dtypes] = runner
            else:
                reason = errors[-1] if errors else "what was made cannot be loaded"
                self._note(f"compiling failed ({reason}), so the merge runs eagerly: the same bytes, but slower")

    def _note(self, note: str) -> None:
        if note not in self.session.notes:
            self.session.notes.append(note)
