"""How a step that failed is tried again."""

import os
from typing import Any

from prefect import State, Task
from prefect.client.schemas.objects import TaskRun
from prefect.tasks import exponential_backoff

from rammerge.errors import InputError

DOWNLOAD_RETRIES, TRACKING_RETRIES = 3, 3


def retrying(times: int) -> dict[str, Any]:
    """Return a Prefect task's settings for `times` more attempts, after 2, 4, 8, ... seconds with jitter.

    Bad input is not tried again, because it stays bad; a network or a busy database may recover.
    """
    first = float(os.environ.get("RAMMERGE_BACKOFF_SECONDS", "2"))
    return {
        "retries": times,
        "retry_delay_seconds": exponential_backoff(backoff_factor=first),
        "retry_jitter_factor": 0.5,
        "retry_condition_fn": _may_recover,
    }


def _may_recover(_: Task[..., Any], __: TaskRun, state: State[Any]) -> bool:
    return not isinstance(state.result(raise_on_failure=False), InputError)
