"""Evaluate the champion beside a run's own models, so that no run replaces it with something worse."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from prefect import task
from prefect.futures import PrefectFuture

from evaluation.judging.leaderboard import CHAMPION, Champion
from flows.run.planned import Plan
from rammerge.system.redaction import without_secrets
from tasks.records.standing import find_standing
from tasks.runtime.retries import TRACKING_RETRIES, retrying
from tasks.steps.evaluating import Scores, evaluate
from tasks.steps.merging import Merged

# Not a step with an entry in the store, because the answer depends on the present champion.
_look_up = task(name="champion", task_run_name="look up the champion {name}", **retrying(TRACKING_RETRIES))(
    without_secrets(find_standing)
)


@dataclass(frozen=True)
class Challenge:
    """The champion of the registered model that a run would promote into.

    Attributes:
        champion: the present champion, or None.
        version: its number.
        scores: its scores under the name of its row; empty if the row is a variant's.
    """

    champion: Champion | None = None
    version: int | None = None
    scores: Mapping[str, PrefectFuture[Scores]] = field(default_factory=dict)

    @property
    def extra(self) -> Champion | None:
        """The champion if it has a separate row on the leaderboard."""
        return self.champion if self.scores else None

    def opponent(self, selected: str) -> Champion | None:
        """Return the champion that the selected variant must match, or None if it is the champion itself."""
        return None if self.champion is None or self.champion.row == selected else self.champion


def challenge(todo: Plan, variants: Mapping[str, Merged]) -> Challenge:
    """Find the champion and evaluate it on the plan's suites.

    If the champion cannot be evaluated, the run does not fail. The gate says why nothing is promoted.
    """
    if not todo.meets_champion:
        return Challenge()
    found = _look_up(todo.recipe.model_name, variants)
    if found.champion is None or found.model is None:
        return Challenge(found.champion, found.version)
    scores = evaluate.submit(CHAMPION, found.model, todo.suites, todo.conditions)
    scores.wait()
    if scores.state.is_completed():
        return Challenge(found.champion, found.version, {CHAMPION: scores})
    reason = " ".join(str(scores.state.result(raise_on_failure=False)).split()).rstrip(".")
    return Challenge(Champion(name=found.champion.name, problem=reason), found.version)
