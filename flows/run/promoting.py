"""The end of a run: promote what passed, after a person's word if the recipe asks for one, and tell of it."""

from pathlib import Path

from prefect import task
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from pydantic import BaseModel, ConfigDict

from evaluation.judging.leaderboard import Leaderboard
from flows.run import approval, artifacts
from flows.run.outcome import Approval, Outcome
from flows.run.telling import tell_of_run
from rammerge.errors import RammergeError
from rammerge.recipe import Recipe
from rammerge.system.redaction import without_secrets
from tasks.records import pushing
from tasks.records.pages import file_fragment, mlflow_page
from tasks.records.regression import regressions
from tasks.records.releasing import Registered, promote
from tasks.records.reporting import PAGE
from tasks.records.tracking import Tracked
from tasks.runtime.limits import is_of_one_run
from tasks.runtime.retries import TRACKING_RETRIES, retrying

_push = task(name="push", task_run_name="push {name} to {repo}", **retrying(TRACKING_RETRIES))(
    without_secrets(pushing.push)
)


class Served(BaseModel):
    """What became of a variant that passed its gates.

    Attributes:
        sentence: who is champion, and why.
        changed: whether this run changed that, or closed the question about it, and not a command meanwhile.
        serves: whether the variant is champion.
        approval: what a person said, where one is asked: `waiting` for an answer that this run does not wait for,
            `refused` also if nobody answered in time.
    """

    model_config = ConfigDict(frozen=True)

    sentence: str
    changed: bool = False
    serves: bool = False
    approval: Approval = "none"


def serve(spec: Recipe, release: Registered, runs: Tracked, page: Path | None, instead_of: int | None) -> Served:
    """Make `release` the champion instead of the version `instead_of`, and say what came of it."""
    if spec.registry.approval == "required":
        return _serve_if_approved(spec, release, runs, page, instead_of)
    promoted = promote.submit(spec.model_name, release, instead_of, str(flow_run.id))
    moved = promoted.result()
    changed = promoted.state.name != "Cached" and moved.changed
    return Served(sentence=moved.sentence, changed=changed, serves=moved.champion == release.version)


def _serve_if_approved(
    spec: Recipe, release: Registered, runs: Tracked, page: Path | None, instead_of: int | None
) -> Served:
    report = mlflow_page(file_fragment(runs.experiment, runs.run_id, PAGE))
    asked = approval.ask(release, instead_of, spec.registry.approval_timeout, report)
    if asked.question is None:
        return Served(sentence=asked.sentence, serves=asked.serves)
    artifacts.publish_release(spec.name, asked.sentence, release, runs, page)
    tell_of_run(spec, "waiting", asked.sentence, version=release.version, report=report)
    if not is_of_one_run():
        return Served(sentence=asked.sentence, approval="waiting")
    moved = approval.wait(asked, asked.question)
    serves = moved.champion == release.version
    word: Approval = "approved" if serves else "refused"
    return Served(sentence=moved.sentence, changed=moved.changed, serves=serves, approval=word)


def pushed(spec: Recipe, release: Registered, served: Served | None) -> list[str]:
    """Push a champion to the hub, if the recipe wants that; return why that failed, which does not fail the run."""
    if spec.registry.push is None or served is None or not served.serves:
        return []
    state = _push(release.name, release.version, spec.registry.push, return_state=True)
    if state.is_completed():
        return []
    reason = " ".join(str(state.result(raise_on_failure=False)).split())
    return [f"{release.name} version {release.version} serves, and is not on the hub: {reason}"]


def tell(
    spec: Recipe, outcome: Outcome, served: Served | None, board: Leaderboard | None, champion: int | None
) -> None:
    """Tell those whom the recipe names what the run came to.

    Args:
        spec: the recipe.
        outcome: of the run.
        served: what became of a variant that passed its gates.
        board: the leaderboard, if anything was evaluated.
        champion: the version that was champion when the run compared.
    """
    version, report = outcome.registered[1], str(outcome.report or "")
    elsewhere = served is not None and served.approval == "refused" and not served.changed
    if outcome.state == "Refused" and not elsewhere:
        tell_of_run(spec, "refused", outcome.sentence, version=version, report=report)
    elif served is not None and served.serves and served.changed:
        tell_of_run(spec, "promoted", outcome.sentence, version=version, report=report)
    if board is None or champion is None:
        return
    try:
        worse = regressions(spec.model_name, champion, board)
    except RammergeError as error:  # MLflow is away; the run has done its work
        get_run_logger().warning(f"whether the champion has become worse is not known: {error}")
        return
    for sentence in worse:
        tell_of_run(spec, "regressed", sentence, version=champion, report=report)
