"""How two registered versions differ: in what they were made of, and in what they scored."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from evaluation.judging.comparing import Comparison
from evaluation.judging.facing import face
from evaluation.judging.leaderboard import BOARD, Leaderboard
from evaluation.statistics import Difference, Estimate
from rammerge.errors import InputError
from tasks.records.connection import client
from tasks.records.registry import TAG_RUN, TAG_VARIANT, Release
from tasks.records.trouble import explained

if TYPE_CHECKING:
    from mlflow import MlflowClient

_SOURCE = "rammerge.source."
_MADE_OF = ("method", "preset", "weight.", "tensors", "then", "output.")
AVERAGE = "average"


class Change(BaseModel):
    """Something that a version was made of, in both versions; None where one has no such thing."""

    model_config = ConfigDict(frozen=True)

    what: str
    before: str | None
    after: str | None


class Scored(BaseModel):
    """What two versions scored on the test items of a suite, or on average, and the difference on the same items."""

    model_config = ConfigDict(frozen=True)

    suite: str
    before: Estimate | None
    after: Estimate | None
    difference: Difference | None


class Differences(BaseModel):
    """The differences of two versions of a registered model, the second minus the first.

    Attributes:
        changes: what they were made of, as far as it differs.
        scores: by suite, then the average; empty if neither was evaluated.
        problem: why the scores cannot be compared, or None.
        confidence: level of the intervals.
    """

    model_config = ConfigDict(frozen=True)

    changes: list[Change]
    scores: list[Scored]
    problem: str | None
    confidence: float

    @property
    def average(self) -> Difference | None:
        """The difference of the averages over the suites."""
        return next((scored.difference for scored in self.scores if scored.suite == AVERAGE), None)

    @property
    def sentences(self) -> tuple[str, ...]:
        """Everything in words: first the scores, then what was changed."""
        return tuple(self._sentences())

    def _sentences(self) -> Iterator[str]:
        for scored in self.scores:
            if scored.difference is not None:
                yield f"{scored.suite}: {shown(scored.difference)} ({100 * self.confidence:g} % interval)"
        if self.problem is not None:
            yield self.problem
        for change in self.changes:
            yield f"{change.what}: {change.before or 'none'} -> {change.after or 'none'}"


def shown(estimate: Estimate) -> str:
    """Return a score or a difference with its interval."""
    sign = "+" if isinstance(estimate, Difference) else ""
    return f"{estimate.value:{sign}.3f} [{estimate.low:{sign}.3f}, {estimate.high:{sign}.3f}]"


@explained()
def differences(first: Release, second: Release) -> Differences:
    """Compare two versions by what their runs recorded; nothing is evaluated."""
    mlflow = client()
    made = [_made_of(mlflow, release) for release in (first, second)]
    changes = [
        Change(what=what, before=made[0].get(what), after=made[1].get(what))
        for what in dict.fromkeys([*made[0], *made[1]])
        if made[0].get(what) != made[1].get(what)
    ]
    boards = [find_board(release) for release in (first, second)]
    comparison, problem = _compared(first, boards[0], second, boards[1])
    return Differences(
        changes=changes,
        scores=list(_scores(_estimates(boards[0], first), _estimates(boards[1], second), comparison)),
        problem=problem,
        confidence=next((board.confidence for board in reversed(boards) if board), 0.95),
    )


def find_board(release: Release) -> Leaderboard | None:
    """Return the leaderboard of the last run that made a version; None if nothing was evaluated, or it is gone."""
    from mlflow.artifacts import load_dict
    from mlflow.exceptions import MlflowException
    from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

    mlflow = client()
    try:
        parent = release.tags.get(TAG_RUN) or mlflow.get_run(release.run_id).data.tags[MLFLOW_PARENT_RUN_ID]
        place = mlflow.get_run(parent).info.artifact_uri
        board = Leaderboard.from_json(load_dict(f"{place}/{BOARD}"))
        board.row(release.tags[TAG_VARIANT])
    except (MlflowException, KeyError, ValueError, InputError):  # a pydantic error is a ValueError
        return None
    return board


def _made_of(mlflow: "MlflowClient", release: Release) -> dict[str, str]:
    from mlflow.exceptions import MlflowException

    sources = {
        f"agent {tag.removeprefix(_SOURCE)}" if tag != f"{_SOURCE}base" else "base": _short(value)
        for tag, value in release.tags.items()
        if tag.startswith(_SOURCE)
    }
    try:
        params: Mapping[str, str] = mlflow.get_run(release.run_id).data.params
    except MlflowException:  # the run was removed
        params = {}
    said = {name: value for name, value in params.items() if name.startswith(_MADE_OF) and value != "None"}
    variant = {"variant": release.tags[TAG_VARIANT]} if TAG_VARIANT in release.tags else {}
    return variant | said | sources


def _short(provenance: str) -> str:
    source, _, digest = provenance.rpartition(" sha256:")
    return f"{source} sha256:{digest[:12]}" if source else provenance


def _compared(
    first: Release, before: Leaderboard | None, second: Release, after: Leaderboard | None
) -> tuple[Comparison | None, str | None]:
    """Return the second version minus the first on the same items, or why there is no such thing."""
    if after is None or before is None:
        lacking = first if before is None else second
        return None, f"there are no scores of version {lacking.version}, so nothing says which is better"
    ours, theirs = second.tags[TAG_VARIANT], first.tags[TAG_VARIANT]
    champion = after.champion
    try:
        if champion is not None and champion.row and champion.name == f"{first.name} version {first.version}":
            return after.compare(ours, champion.row), None  # measured anew in that run
        called = f"version {first.version}"
        return face(after, ours, before, theirs, called=called).compare(ours, called), None
    except InputError as error:
        return None, str(error)


def _estimates(board: Leaderboard | None, release: Release) -> dict[str, Estimate]:
    if board is None:
        return {}
    row = board.row(release.tags[TAG_VARIANT])
    return {**row.suites["test"], AVERAGE: row.average["test"]}


def _scores(
    before: Mapping[str, Estimate], after: Mapping[str, Estimate], comparison: Comparison | None
) -> Iterator[Scored]:
    between = {**comparison.suites, AVERAGE: comparison.average} if comparison else {}
    suites = [suite for suite in dict.fromkeys([*after, *before]) if suite != AVERAGE]
    for suite in [*suites, *([AVERAGE] if suites else [])]:
        yield Scored(suite=suite, before=before.get(suite), after=after.get(suite), difference=between.get(suite))
