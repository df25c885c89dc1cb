"""How long a step, or a model that is asked something, may take, so that no run waits for ever.

A model that is not done by then is ended with its process (evaluation.runners.pool), and its step fails. Code that runs
in this process, such as a method of the user's own or a read from a disk that no longer answers, cannot be ended by
itself. So the process ends with it, if the process is there for the run alone.
"""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from datetime import timedelta
from uuid import UUID

from prefect import get_client
from prefect.runtime import flow_run
from prefect.states import Failed

from rammerge.system.deadlines import deadline
from rammerge.system.durations import parse_duration
from rammerge.system.interrupts import end_at_once
from tasks.runtime.models import limit_models

# What a flow without a recipe may take: verifying a version that lies elsewhere downloads all of it.
FLOW_SECONDS = 86_400.0
# What a step may take longer than the model that it asks, which is ended first and says so.
_GRACE_SECONDS = 60.0
_RECORDING_SECONDS = 10.0
# Set by a Prefect worker for the process of one flow run.
_OF_ONE_RUN = "PREFECT__FLOW_RUN_ID"


class _Limit:
    """The present limit of this process in seconds."""

    seconds = FLOW_SECONDS


def is_of_one_run() -> bool:
    """Tell whether this process is there for one run of a deployment, and for nothing else."""
    return _OF_ONE_RUN in os.environ


def limit_steps(text: str) -> None:
    """From now on let a step, or a model, take as long as `text` says (`compute.timeout` of a recipe)."""
    limit_steps_to(parse_duration(text))


def limit_steps_to(seconds: float) -> None:
    """From now on let a step, or a model, take this many seconds."""
    _Limit.seconds = seconds
    limit_models(seconds)


def step_seconds() -> float:
    """Return how long a step may take at present."""
    return _Limit.seconds


@contextmanager
def limited(step: str) -> Iterator[None]:
    """Within the context, end the run if the step takes too long."""
    limit = _Limit.seconds
    context = copy_context()  # of the step's thread: it knows Prefect's address
    sentence = f"the step '{step}' took longer than {timedelta(seconds=limit)}, the recipe's compute.timeout"
    with deadline(limit + _GRACE_SECONDS, context.run, _give_up, sentence, flow_run.id):
        yield


def _give_up(sentence: str, run: str | None) -> None:
    if run is not None:
        # A server that does not answer, either, must not keep the process.
        recording = threading.Thread(target=copy_context().run, args=(_record, sentence, UUID(run)), daemon=True)
        recording.start()
        recording.join(_RECORDING_SECONDS)
    print(f"error: {sentence}", file=sys.stderr, flush=True)
    end_at_once(1, anyway=is_of_one_run())


def _record(sentence: str, run: UUID) -> None:
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run, Failed(name="TimedOut", message=sentence), force=True)
