"""The trials of a search: candidates are asked side by side, their weights are dropped, and progress is shown."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evaluation.search.schedule import SHARES
from flows.run.planned import Plan
from flows.run.settling import settle
from tasks.runtime.progress import Event, emit
from tasks.search.study import Proposal
from tasks.steps.activations import activations
from tasks.steps.candidates import Candidates
from tasks.steps.methods import MethodRef
from tasks.steps.overlap import OverlapResult
from tasks.steps.sources import Model
from tasks.steps.trials import Looked, trial


@dataclass
class Candidate:
    """A trial: what was proposed, the method, and what it scored on the items of all looks so far.

    Attributes:
        first: each objective, and `average` and `worst`, on the items of the first look.
        looks: how many looks it took part in.
    """

    proposal: Proposal
    method: MethodRef
    looked: Looked | None = None
    first: dict[str, float] = field(default_factory=dict)
    looks: int = 0

    @property
    def items(self) -> int:
        """The number of items that it saw."""
        return self.looked.items if self.looked else 0

    @property
    def means(self) -> dict[str, float]:
        """The mean of each suite on these items."""
        return self.looked.means if self.looked else {}


class Trials:
    """Asks candidates for a plan, and knows how long that takes."""

    def __init__(self, todo: Plan, sources: Mapping[str, Model], overlap: OverlapResult, owner: str) -> None:
        """Take the plan, the base (called `base`) and the agents, the overlap, and the name of the search."""
        self._merging: dict[str, Any] = {
            "base": sources["base"],
            "agents": {name: sources[name] for name in todo.agents},
            "groups": todo.groups,
            "output": todo.recipe.output,
        }
        self._merges = Candidates(**self._merging, owner=owner)
        self._asking = {"suites": todo.suites, "conditions": todo.conditions}
        prompts = todo.search.prompts if todo.search else None
        recorded = activations.submit(sources["base"], prompts, todo.recipe.compute) if prompts else None
        self._machine = {"compute": todo.recipe.compute, "overlap": overlap, "owner": owner, "activations": recorded}
        self._began = time.monotonic()
        self._answers, self._seconds = 0, 0.0  # of what no earlier run had done
        self.candidates: list[Candidate] = []
        self._holding: list[Candidate] = []  # whose weights may be on the disk

    @property
    def answers(self) -> int:
        """How many answers all candidates gave."""
        return sum(candidate.items for candidate in self.candidates)

    def look(self, candidates: Sequence[Candidate], look: int) -> None:
        """Ask candidates, all at the same time, the items of the looks up to `look`."""
        began, before = time.monotonic(), sum(candidate.items for candidate in candidates)
        self._holding += candidates
        given = [self._given(candidate, look) for candidate in candidates]
        new = sum(trial.find(**each) is None for each in given)
        methods = [candidate.method for candidate in candidates]
        futures = [
            trial.submit(_named(candidate, look), **each, **self._machine, beside=methods)
            for candidate, each in zip(candidates, given, strict=True)
        ]
        settle(*futures)
        for candidate, future in zip(candidates, futures, strict=True):
            candidate.looked, candidate.looks = future.result(), look + 1
        if new:
            asked = sum(candidate.items for candidate in candidates) - before
            self._answers += asked * new // len(candidates)
            self._seconds += time.monotonic() - began

    def keep(self, kept: Sequence[Candidate]) -> None:
        """Remove the weights of all other candidates."""
        for candidate in self._holding:
            if candidate not in kept:
                self._merges.forget(candidate.method)
        self._holding = list(kept)

    def seconds(self, answers: int) -> float:
        """Return how long this many answers, and their merges, take at the present pace; 0 if it is not known."""
        return answers * self._seconds / self._answers if self._answers else 0.0

    @property
    def cached(self) -> bool:
        """Whether an earlier run had done everything."""
        return not self._seconds

    @property
    def elapsed(self) -> float:
        """Seconds since the search began."""
        return time.monotonic() - self._began

    def show(self, best: Candidate, planned: int, answers: int) -> None:
        """Show the best candidate so far, and how much of `planned` trials and of their `answers` is done."""
        left = self.seconds(answers - self.answers)
        average = sum(best.means.values()) / len(best.means)
        detail = (
            f"{len(self.candidates)} of {planned} trials, {self.answers:,} of {answers:,} answers, "
            f"about {left / 60:.0f} min left; best {100 * average:.1f} on {best.items} items: {best.proposal.words}"
        )
        emit(Event("search", "running", min(1.0, self.answers / answers), detail))

    def _given(self, candidate: Candidate, look: int) -> dict[str, Any]:
        return {**self._merging, **self._asking, "method": candidate.method, "look": look}


def _named(candidate: Candidate, look: int) -> str:
    share = SHARES[look]
    items = "all items" if share == 1 else f"{share} of the items"
    return f"trial {candidate.proposal.number} on {items}"
