"""Run a recipe in this process, from its checks to its outcome: what the command and Python call."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.servers.api import prefect_api, wait_until_recorded
from rammerge import store
from rammerge.cli.terminal import say
from rammerge.recipe import load
from tasks.runtime.environment import activate, quiet
from tasks.runtime.slots import expect_models

if TYPE_CHECKING:
    from flows.run.outcome import Outcome
    from tasks.runtime.progress import Listener

Display = Callable[[int], "AbstractContextManager[Listener]"]


def run(recipe: Path, display: Display) -> "Outcome":
    """Run the pipeline of `recipe`. A Prefect API is started, and stopped, where none is configured.

    Args:
        recipe: the file.
        display: makes, of the number of steps, the listener that shows them while they run.

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
    with prefect_api() as answering:
        from flows.merge_and_evaluate import merge_and_evaluate
        from flows.run.checking import check
        from flows.run.planning import plan
        from tasks.runtime.progress import listening

        todo = plan(recipe)
        check(todo)
        with answering(), display(todo.steps) as listener, listening(listener):
            state: Any = merge_and_evaluate(recipe, return_state=True)
            wait_until_recorded(state.state_details.flow_run_id)
        outcome: Outcome = state.result()
    return outcome
