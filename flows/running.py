"""Run a recipe in this process, from its checks to its outcome: what the command and Python call."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.servers.api import prefect_api, wait_until_recorded
from rammerge import store
from rammerge.cli.terminal import say
from rammerge.recipe import load, parse_runner
from tasks.runtime.environment import RUNNER, activate, quiet
from tasks.runtime.models import expect_models

if TYPE_CHECKING:
    from flows.run.outcome import Outcome
    from tasks.runtime.progress import Event, Listener

Display = Callable[[int], "AbstractContextManager[Listener]"]


def run(recipe: Path, display: Display, runner: str | None = None) -> "Outcome":
    """Run the pipeline of `recipe`. A Prefect API is started, and stopped, where none is configured.

    Args:
        recipe: the file.
        display: makes, of the number of steps, the listener that shows them while they run.
        runner: what runs the steps instead of what the recipe says; see `compute.runner`.

    Raises:
        InputError: bad input, found before any work.
        RammergeError: a step failed.
    """
    load(recipe)  # most mistakes are in the recipe, and show before anything starts
    activate()
    quiet()
    say(f"{recipe}: checking, and starting Prefect ...")
    if store.is_new():
        expect_models()  # nothing can be cached, so models will run
    with _runner(runner), prefect_api() as answering:
        from flows.merge_and_evaluate import merge_and_evaluate
        from flows.run.alive import strike_off
        from flows.run.checking import check
        from flows.run.planning import plan
        from tasks.runtime.progress import listening

        todo = plan(recipe)
        check(todo)
        ended: list[Event] = []
        with answering(), display(todo.steps) as listener, listening(listener), listening(_noting_ends(ended)):
            state: Any = merge_and_evaluate(recipe, return_state=True)
            flow_run = state.state_details.flow_run_id
            if wait_until_recorded(flow_run, len(ended)) and state.is_completed():
                strike_off(flow_run)
        outcome: Outcome = state.result()
    return outcome


def _noting_ends(ended: "list[Event]") -> "Listener":
    """Return a listener that notes the ends of steps that have begun, each of which Prefect has on record some time."""

    def note(event: "Event") -> None:
        if event.kind and event.state in ("done", "cached", "failed"):
            ended.append(event)

    return note


@contextmanager
def _runner(runner: str | None) -> Iterator[None]:
    """While the context lasts, have steps run where `runner` says, if it says something."""
    before = os.environ.get(RUNNER)
    if runner is not None:
        os.environ[RUNNER] = parse_runner(runner)
    try:
        yield
    finally:
        if runner is not None:
            os.environ.pop(RUNNER)
            os.environ.update({RUNNER: before} if before is not None else {})
