"""The definition of a statistic of the whole model, and the statistics that a method reads in the merge."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from rammerge.engine.blocks import BlockFunction, Numbers, Rows, added
from rammerge.engine.sums import GrainSums, totals
from rammerge.engine.work import Work

if TYPE_CHECKING:
    from rammerge.engine.output.chunks import Unit
    from rammerge.engine.running import Runner
    from rammerge.engine.session import Session

R = TypeVar("R")
K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True)
class Scan:
    """One read of tensors for a pass. Passes that scan at the same time share the read.

    Attributes:
        stage: what to call this for the user.
        runner: of the block function.
        tensors: what is read.
        begin: makes the work on a unit, in the thread that does it.
        end: takes the work that was done on a unit, and its counts, in the same thread.
    """

    stage: str
    runner: Runner
    tensors: Sequence[str]
    begin: Callable[[Unit], Work]
    end: Callable[[Unit, Work, list[int]], None]


# A pass at work: it yields what it has to read next, goes on when that was read, and returns its result.
Scans = Generator[Sequence[Scan], None, R]


class Pass(Protocol[R]):
    """A statistic and how it is computed. The engine knows nothing else about it.

    It is a frozen dataclass. Its fields are the question that a method asks; equal questions share one result.

    Attributes:
        name: its name where results are kept.
    """

    name: ClassVar[str]

    @property
    def height(self) -> int:
        """The number of rows of coefficients that the block function reads."""

    def weighted(self, weights: Sequence[float]) -> Pass[R]:
        """Return the same statistic of task vectors that are multiplied by their agents' weights."""

    def function(self, agents: int) -> BlockFunction:
        """Return the function of one block."""

    def reserved(self, agents: int) -> int:
        """Return the bytes that a thread needs to collect results."""

    @property
    def needs(self) -> Sequence[Pass[Any]]:
        """The passes whose results this one reads. Those of the same tensors suffice."""

    def collect(self, session: Session, runner: Runner, known: Statistics) -> Scans[R]:
        """Run the block function over the model, as often as needed, and return the result.

        Args:
            session: the inputs.
            runner: of the block function.
            known: the results of the passes that this one needs.
        """

    def counted(self, known: Statistics) -> Sequence[Pass[Any]]:
        """Return the passes to measure next where parts of the model are measured apart: mostly the pass itself."""

    def join(self, results: Sequence[R]) -> R:
        """Return the result of the whole model from those of its parts, which are in order and share no tensor."""

    def to_json(self, result: R) -> Any:
        """Return a result as plain JSON, so that a run after a kill can use it."""

    def from_json(self, content: Any) -> R:
        """Return the result that `to_json` wrote."""


class Statistics:
    """The results of passes."""

    def __init__(self, results: Mapping[Pass[Any], Any] | None = None) -> None:
        self._results = dict(results or {})

    def __getitem__(self, wanted: Pass[R]) -> R:
        result: R = self._results[wanted]
        return result

    def __or__(self, others: Statistics) -> Statistics:
        return Statistics(self._results | others._results)

    def find(self, wanted: Pass[R]) -> R | None:
        """Return the result of a pass, or None if it was not computed."""
        return self._results.get(wanted)

    def only(self, passes: Sequence[Pass[Any]]) -> Statistics:
        """Return the results of `passes`."""
        return Statistics({each: self[each] for each in passes})

    def to_json(self, passes: Sequence[Pass[Any]]) -> list[Any]:
        """Return the results of `passes` as plain JSON."""
        return [[each.name, each.to_json(self[each])] for each in passes]

    @classmethod
    def from_json(cls, passes: Sequence[Pass[Any]], content: Any) -> Statistics:
        """Return the statistics that `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: the content is not what `to_json` writes for `passes`.
        """
        results = {}
        for each, (name, result) in zip(passes, content, strict=True):
            if name != each.name:
                raise ValueError(f"expected {each.name}, not {name}")
            results[each] = each.from_json(result)
        return cls(results)


def united(parts: Iterable[Mapping[K, V]]) -> dict[K, V]:
    """Return what is known of the tensors of all parts, in their order."""
    return {name: value for part in parts for name, value in part.items()}


def side_by_side(works: Sequence[Scans[R]]) -> Scans[list[R]]:
    """Let several works share their reads, and return their results in order."""
    found: dict[int, R] = {}
    while len(found) < len(works):
        wanted: list[Scan] = []
        for at, scans in enumerate(works):
            try:
                wanted += next(scans) if at not in found else ()
            except StopIteration as end:
                found[at] = end.value
        if wanted:
            yield wanted
    return [found[at] for at in range(len(works))]


def count_by_tensor(session: Session, stage: str, runner: Runner, threshold: float) -> Scans[dict[str, list[int]]]:
    """Run a block function that only counts over all float tensors. Return its counts per tensor."""
    found = yield from count_and_sum_by_tensor(session, stage, runner, threshold)
    return {name: counts for name, (counts, _) in found.items()}


def count_and_sum_by_tensor(
    session: Session, stage: str, runner: Runner, threshold: float, rows: Callable[[str], Rows] | None = None
) -> Scans[dict[str, tuple[list[int], list[float]]]]:
    """Run a block function that counts and sums over all float tensors. Return its counts and sums per tensor.

    Args:
        session: the inputs.
        stage: what to call this for the user.
        runner: of the block function.
        threshold: the mask's.
        rows: makes a tensor's coefficients, if the function reads any.
    """
    agents = len(session.agents)
    none: Rows = [[0.0] * agents]
    width = len(runner.function.results(agents))
    lock = threading.Lock()
    counts = {name: [0] * runner.width for name in session.floats}
    sums = {name: [0.0] * width for name in session.floats}
    grains: dict[str, list[GrainSums]] = {name: [] for name in session.floats}
    left = {name: session.base.tensors[name].numel for name in session.floats}

    def begin(unit: Unit) -> Work:
        numbers = Numbers(rows(unit.tensor) if rows else none, threshold, [0] * (1 + agents), unit.start)
        return Work(numbers, sums=GrainSums.empty(width, unit.stop - unit.start) if width else None)

    def end(unit: Unit, work: Work, found: list[int]) -> None:
        with lock:
            name = unit.tensor
            counts[name] = added(counts[name], found)
            left[name] -= unit.stop - unit.start
            if work.sums:
                grains[name].append(work.sums)
            if work.sums and not left[name]:
                sums[name] = totals(grains.pop(name))

    yield [Scan(stage, runner, session.floats, begin, end)]
    return {name: (counts[name], sums[name]) for name in session.floats}
