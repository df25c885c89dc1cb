"""The search of a recipe: candidates are proposed, and dropped while the others see more and more items.

Everything here sees validation items only. The two candidates that are left become variants like any other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from evaluation.search.history import History, Trial, order
from evaluation.search.schedule import answers, left
from flows.run import artifacts
from flows.run.planned import Plan, PlannedSearch
from flows.run.settling import results, settle
from flows.run.trials import Candidate, Trials
from rammerge import store
from rammerge.system.home import home
from rammerge.system.locks import locked
from tasks.runtime.progress import Event, emit
from tasks.runtime.result import identity
from tasks.search.study import TOGETHER, Proposal, Study
from tasks.steps.history import Searched, searched
from tasks.steps.methods import MethodRef
from tasks.steps.overlap import OverlapResult
from tasks.steps.rehearsing import Rehearsal
from tasks.steps.sources import Model
from tasks.steps.trials import reference

_VERSION = 1
_NAME_DIGITS = 12


def search(todo: Plan, sources: Mapping[str, Model], overlap: OverlapResult) -> tuple[Plan, Searched | None]:
    """Return the plan with the variants that its search found, and the record of the search.

    Args:
        todo: what is to be done; it is returned as it is if it has no search.
        sources: the base, called `base`, and the agents.
        overlap: the elements that each agent changed.
    """
    if todo.search is None:
        return todo, None
    name = _study_name(todo, todo.search, sources)
    trials = Trials(todo, sources, overlap, name)
    with locked(home() / "search" / f"{name}.lock"):
        running = _Search(todo, todo.search, sources, trials, name)
        best = running.run()
    record = searched.submit(running.history(best, running.stopped))
    settle(record)
    emit(Event("search", "cached" if trials.cached else "done"))
    artifacts.publish_search(todo.recipe.name, record.result())
    found = {name: candidate.method for name, candidate in zip(todo.search.names, best, strict=False)}
    return replace(todo, variants={**todo.variants, **found}), record.result()


class _Search:
    """A search that runs. `stopped` says why it has less than was asked for, if it has."""

    def __init__(
        self, todo: Plan, asked: PlannedSearch, sources: Mapping[str, Model], trials: Trials, name: str
    ) -> None:
        self._todo, self._asked, self._trials = todo, asked, trials
        self._sizes = _validation_sizes(todo, sources)
        self._planned = asked.trials(self._sizes)
        self._specialists = self._first_looks(sources) if "retention" in asked.written.objectives else {}
        self._study = Study(
            asked.space,
            name=name,
            seed=todo.recipe.name,
            database=asked.written.database or f"sqlite:///{home() / 'search' / 'trials.db'}",
            objectives=len(self._objectives),
        )
        self.stopped: str | None = None

    def run(self) -> list[Candidate]:
        """Propose candidates, drop the worst, and return the winner and the runner-up."""
        self._propose()
        alive = self._ranked(_distinct(self._trials.candidates))
        for look, count in list(enumerate(left(self._planned)))[1:]:
            if self._is_late(0):
                self.stopped = self.stopped or f"the {self._asked.written.minutes:g} minutes were over"
                break
            alive = alive[:count]
            for chunk in _chunks(alive):
                self._look(chunk, look, alive)
            alive = self._ranked(alive)
        self._trials.keep([])
        return alive[:2]

    def history(self, ranked: Sequence[Candidate], stopped: str | None) -> History:
        """Return what became of the candidates, the best of them first, and why there are no more."""
        trials = [_record(candidate) for candidate in self._trials.candidates]
        return History(
            objectives=self._objectives,
            trials=trials,
            best=ranked[0].proposal.number,
            second=ranked[1].proposal.number if ranked[1:] else None,
            answers=self._trials.answers,
            full=len(trials) * sum(self._sizes),
            stopped=stopped,
        )

    @property
    def _objectives(self) -> list[str]:
        """The names of the objectives; there is a retention for each suite on which an agent has a score."""
        retention = [f"retention on {suite}" for suite in self._specialists]
        named = [retention if objective == "retention" else [objective] for objective in self._asked.written.objectives]
        return [name for names in named for name in names] or ["average"]

    def _propose(self) -> None:
        """Ask the first items of one candidate after the other, those first that an earlier search has asked."""
        known = self._study.known()[: self._planned]
        while (missing := self._planned - len(self._trials.candidates)) > 0:
            if self._is_late(min(TOGETHER, missing)):
                self.stopped = f"{self._asked.written.minutes:g} minutes are enough for no more"
                break
            new = [] if known else self._study.ask(min(TOGETHER, missing))
            proposals, known = new or known[:TOGETHER], known[TOGETHER:]
            chunk = [Candidate(proposal, self._method(proposal)) for proposal in proposals]
            self._trials.candidates += chunk
            self._look(chunk, 0, self._trials.candidates)
            if new:
                self._study.tell([(each.proposal, [each.first[name] for name in self._objectives]) for each in chunk])

    def _look(self, chunk: Sequence[Candidate], look: int, alive: Sequence[Candidate]) -> None:
        self._trials.look(chunk, look)
        for candidate in chunk:
            candidate.first = candidate.first or self._scores(candidate)
        ranked = self._ranked(alive)
        self._trials.keep(ranked[: self._asked.written.keep])
        self._trials.show(ranked[0], self._planned, answers(self._planned, self._sizes))
        if not self._trials.cached:
            artifacts.publish_progress(self._todo.recipe.name, self.history(ranked, "it is still running"))

    def _ranked(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Return candidates from best to worst, those that saw fewer items last."""
        numbered = {candidate.proposal.number: candidate for candidate in candidates}
        ranked = order({number: self._scores(candidate) for number, candidate in numbered.items()}, self._objectives)
        return sorted((numbered[number] for number in ranked), key=lambda candidate: -candidate.looks)

    def _scores(self, candidate: Candidate) -> dict[str, float]:
        means = candidate.means
        kept = {f"retention on {suite}": means[suite] / best for suite, best in self._specialists.items()}
        return {"average": sum(means.values()) / len(means), "worst": min(means.values()), **kept}

    def _first_looks(self, sources: Mapping[str, Model]) -> dict[str, float]:
        """Return the best score of any agent on the first items of each suite, unless all have none."""
        conditions = self._todo.conditions
        agents = {
            name: reference.submit(name, sources[name], self._todo.suites, conditions, 0) for name in self._todo.agents
        }
        settle(*agents.values())
        means = [looked.means for looked in results(agents).values()]
        best = {suite.name: max(each[suite.name] for each in means) for suite in self._todo.suites}
        return {suite: value for suite, value in best.items() if value > 0}

    def _method(self, proposal: Proposal) -> MethodRef:
        recipe = self._todo.recipe
        settled = self._asked.space.settle(proposal.method, proposal.params)
        return MethodRef.of(settled, trusted=recipe.trust, directory=recipe.directory)

    def _is_late(self, more: int) -> bool:
        """Whether the time is over, or will be if `more` candidates are proposed."""
        if self._asked.written.minutes is None or not self._trials.candidates:
            return False
        wanted = answers(len(self._trials.candidates) + more, self._sizes) - self._trials.answers if more else 0
        return self._trials.elapsed + self._trials.seconds(wanted) > 60 * self._asked.written.minutes


def _validation_sizes(todo: Plan, sources: Mapping[str, Model]) -> list[int]:
    """Return the number of validation items of each suite."""
    paths = {name: model.path for name, model in sources.items()}
    return list(Rehearsal(todo.suites, paths, todo.conditions).found().validation_items.values())


def _study_name(todo: Plan, asked: PlannedSearch, sources: Mapping[str, Model]) -> str:
    """Return a name that depends on everything that decides a score or a proposal, and on no budget."""
    fixed = asked.space.fixed.identity
    inputs = {
        **({"fixed": fixed} if fixed else {}),
        "space": {method: identity(domains) for method, domains in asked.space.methods.items()},
        "objectives": asked.written.objectives,
        "models": identity(sources),
        "groups": identity(todo.groups),
        "output": identity(todo.recipe.output),
        "suites": identity(todo.suites),
        "conditions": identity(todo.conditions),
    }
    return f"{todo.recipe.name}-{store.key_of('search', _VERSION, inputs)[:_NAME_DIGITS]}"


def _distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates without those that are the same merge as an earlier one."""
    return list({store.key_of("merge", 0, identity(each.method)): each for each in reversed(candidates)}.values())[::-1]


def _chunks(candidates: Sequence[Candidate]) -> list[Sequence[Candidate]]:
    return [candidates[start : start + TOGETHER] for start in range(0, len(candidates), TOGETHER)]


def _record(candidate: Candidate) -> Trial:
    return Trial(
        number=candidate.proposal.number,
        method=candidate.proposal.method,
        params=candidate.proposal.params,
        first=candidate.first,
        suites=candidate.means,
        items=candidate.items,
        looks=candidate.looks,
    )
