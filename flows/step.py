"""One step of a run on a worker of another pool: its arguments come from there, and its output goes to the store."""

from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import State, flow
from prefect.states import Completed, Failed

from flows.run.alive import alive, is_alive
from flows.run.sending import BAD_INPUT, FLOW, read
from flows.run.settling import settle
from rammerge import store
from rammerge.errors import InputError, RammergeError
from rammerge.system.home import home
from rammerge.system.redaction import redact, without_secrets
from tasks.runtime.environment import activate
from tasks.runtime.limits import limit_steps
from tasks.runtime.models import ended_by_interrupt, none_expected
from tasks.runtime.runner import workers
from tasks.runtime.step import Step
from tasks.steps.activations import activations
from tasks.steps.batches import choose_batches
from tasks.steps.counting import overlap_part, statistics_part
from tasks.steps.evaluating import evaluate
from tasks.steps.merging import merge, merge_together
from tasks.steps.overlap import extract
from tasks.steps.parts import part
from tasks.steps.smoking import smoke
from tasks.steps.trials import reference, trial

_FOUND: tuple[Step[Any], ...] = (
    *(overlap_part, extract, statistics_part, part, merge, merge_together),
    *(activations, choose_batches, evaluate, reference, smoke, trial),
)
STEPS = {step.kind: step for step in _FOUND}


@flow(name=FLOW, flow_run_name="{name}", task_runner=workers())
@ended_by_interrupt()
@without_secrets
def step(
    kind: str,
    name: str,
    arguments: dict[str, Any],
    asked_by: UUID,
    home: Path,
    timeout: str = "24h",
    shared: str | None = None,
) -> "State[None]":
    """Do a step of the run `asked_by`, for at most `timeout`. Runs start this themselves, as their recipes say.

    Args:
        kind: the step's kind.
        name: of the task run.
        arguments: of the step, as JSON.
        asked_by: the run's id.
        home: the run's RAMMERGE_HOME, which this worker must share.
        timeout: as `compute.timeout` of the recipe.
        shared: the shared store that the run uses, if any.
    """
    activate()
    store.share(shared)
    limit_steps(timeout)
    with alive(), none_expected():
        try:
            _require_same_home(home, asked_by)
            settle(STEPS[kind].submit(**read(arguments)))
        except RammergeError as error:
            return Failed(name=BAD_INPUT if isinstance(error, InputError) else "Failed", message=redact(str(error)))
    return Completed(message=f"{name} is in the store")


def _require_same_home(asked: Path, run: UUID) -> None:
    """Check that the run that asked works in the home of this worker: there it has locked a file."""
    if asked != home() or not is_alive(run):
        raise InputError(
            f"this worker's home {home()} is not the home {asked} of the run that asked; set RAMMERGE_HOME of both to "
            "one shared directory, mounted at the same path"
        )
