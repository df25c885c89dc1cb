"""Run a recipe from the command line: a Prefect API for it, its steps on display, and a report at the end."""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from flows.cli.display import Steps, console, steps_display
from rammerge.cli.terminal import say
from rammerge.errors import RammergeError
from rammerge.recipe import load
from tasks.records import pages
from tasks.runtime.environment import activate, quiet

if TYPE_CHECKING:
    from flows.run.outcome import Outcome

_RECORDING_SECONDS = 5.0


def run(recipe: Path) -> None:
    """Run `recipe` and print what it came to.

    Raises:
        RammergeError: a step failed, or a gate refused the selected variant.
    """
    started = time.monotonic()
    load(recipe)  # most mistakes are in the recipe, and show before anything starts
    activate()
    quiet()
    say(f"{recipe}: checking, and starting Prefect ...")
    with _prefect() as healthy:
        from flows.merge_and_evaluate import merge_and_evaluate
        from flows.run.checking import check
        from flows.run.planning import plan
        from tasks.runtime.progress import listening

        todo = plan(recipe)
        list(check(todo))
        healthy()
        with steps_display(todo.steps) as steps, listening(steps):
            state: Any = merge_and_evaluate(recipe, return_state=True)
            _wait_until_recorded(state.state_details.flow_run_id)
        outcome: Outcome = state.result()
        _report(outcome, steps, time.monotonic() - started)
    if not outcome.passed:
        raise RammergeError(f"'{outcome.selected}' was refused by a gate: {' '.join(outcome.refusals)}")


def _report(outcome: "Outcome", steps: "Steps", seconds: float) -> None:
    from evaluation.judging.leaderboard import Leaderboard
    from evaluation.report.render import differences_to_rich, to_rich

    board = Leaderboard.from_json(json.loads(outcome.leaderboard.read_text("utf-8")))
    decision = json.loads(outcome.decision.read_text("utf-8"))
    out = console()
    out.print()
    out.print(to_rich(board))
    out.print(differences_to_rich(board))
    for warning in outcome.warnings:
        out.print(f"[yellow]warning:[/] {escape(warning)}", highlight=False)
    name, version = outcome.registered
    lines = [f"{steps.summary()}, {seconds:.0f} s", ""]
    for gate in decision["outcomes"]:
        verdict = "[green]passed[/] " if gate["passed"] else "[red]refused[/]"
        lines.append(f"gate       {verdict} {escape(gate['sentence'])}")
    lines += [
        f"selected   {outcome.selected}",
        f"model      {escape(str(outcome.model))}",
        f"registry   {escape(outcome.champion)}",
        "",
        "look further:",
        "  rammerge ui                        the run in Prefect, the scores and releases in MLflow",
        f"  rammerge releases {name:<16} what is registered, and who is champion",
        f"  export MLFLOW_TRACKING_URI={escape(os.environ['MLFLOW_TRACKING_URI'])}",
        f"  python -c 'import mlflow; mlflow.transformers.load_model(\"models:/{name}/{version}\")'",
    ]
    out.print("\n".join(lines), highlight=False, soft_wrap=True)


@contextmanager
def _prefect() -> Iterator[Callable[[], None]]:
    """Make a Prefect API available: the user's, that of `rammerge ui`, or one of our own while the context lasts.

    Yields a function that returns once the API answers, so that imports go on beside the server's start. Our own rather
    than Prefect's temporary one: its log stays off the terminal, and a kill of this process ends it too.
    """
    from flows.servers.dashboards import running_dashboard
    from flows.servers.local import free_port, prefect_server

    if "PREFECT_API_URL" in os.environ or "PREFECT_PROFILE" in os.environ:
        yield lambda: None
    elif address := running_dashboard():
        os.environ["PREFECT_API_URL"] = f"{address}/api"
        yield lambda: None
    else:
        with prefect_server(port=free_port(), dashboard=False) as server:
            os.environ["PREFECT_API_URL"] = f"{server.url}/api"
            os.environ.setdefault("PREFECT_UI_URL", pages.dashboards().prefect)  # this server has no dashboard
            yield server.wait_until_healthy


def _wait_until_recorded(flow_run: Any) -> None:
    """Return once Prefect's database has the log and the end of every step, which it learns a moment after the flow."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.logging.handlers import APILogWorker

    APILogWorker.drain_all()
    deadline = time.monotonic() + _RECORDING_SECONDS
    with get_client(sync_client=True) as client:
        while time.monotonic() < deadline:
            runs = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run])))
            if all(run.state is not None and run.state.is_final() for run in runs):
                return
            time.sleep(0.1)
