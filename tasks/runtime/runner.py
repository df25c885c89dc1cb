"""Run steps on a few threads of this process, and report to listeners how each step ended.

Threads suffice: the engine's kernels, hashing, downloads and torch's arithmetic release the GIL. To spread the steps
over machines, give the flow a Dask or Ray task runner instead (`flow.with_options(task_runner=...)`).
"""

import os
from collections.abc import Iterable
from typing import Any, cast

from prefect import Task
from prefect.futures import PrefectConcurrentFuture, PrefectFuture
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from tasks.runtime.progress import Event, State, emit


class Workers(ThreadPoolTaskRunner[Any]):
    """One thread per processor: at least two, so that downloads, merges and evaluation overlap, and at most eight."""

    def __init__(self, max_workers: int | None = None) -> None:
        wanted = os.environ.get("PREFECT_TASKS_RUNNER_THREAD_POOL_MAX_WORKERS")
        default = int(wanted) if wanted else min(8, max(2, os.cpu_count() or 1))
        super().__init__(max_workers=max_workers or default)

    def submit(
        self,
        task: Task[..., Any],
        parameters: dict[str, Any],
        wait_for: Iterable[PrefectFuture[Any]] | None = None,
        dependencies: dict[str, Any] | None = None,
    ) -> PrefectConcurrentFuture[Any]:
        """Submit a step, and report its end."""
        name = str(task.task_run_name or task.name).format(**parameters)
        future = super().submit(task, parameters, wait_for, dependencies)
        future.add_done_callback(lambda done: emit(Event(name, _ended(done))))
        return future


def workers() -> TaskRunner[PrefectFuture[Any]]:
    """Return the pipeline's task runner, with the type that `flow` requires."""
    return cast(TaskRunner[PrefectFuture[Any]], Workers())


def _ended(future: PrefectFuture[Any]) -> State:
    future.wait()  # returns at once, and updates the future's state from the thread's
    state = future.state
    if state.is_completed():
        return "cached" if state.name == "Cached" else "done"
    return "skipped" if state.is_pending() else "failed"
