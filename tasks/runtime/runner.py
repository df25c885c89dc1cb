"""Run steps on a few threads of this process, and report to listeners how each step ended.

Threads suffice on one machine: the engine's kernels, hashing, downloads and torch's arithmetic release the GIL. For
steps on several see tasks.runtime.cluster.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self, cast
from uuid import UUID

from prefect import State as PrefectState
from prefect import Task
from prefect.futures import PrefectConcurrentFuture, PrefectFuture, resolve_futures_to_results
from prefect.states import Completed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from rammerge.system.interrupts import interrupted
from tasks.runtime.elsewhere import whom_to_ask
from tasks.runtime.progress import Event, State, emit
from tasks.runtime.step import Step
from tasks.runtime.turns import Turn

_MOST_ELSEWHERE = 64  # steps that wait for other workers, each in a thread


class Workers(ThreadPoolTaskRunner[Any]):
    """One thread per processor: at least two, so that downloads, merges and evaluation overlap, and at most eight.

    Steps that other workers run have threads of their own, because these only wait.
    """

    def __init__(self, max_workers: int | None = None) -> None:
        wanted = os.environ.get("PREFECT_TASKS_RUNNER_THREAD_POOL_MAX_WORKERS")
        default = int(wanted) if wanted else min(8, max(2, os.cpu_count() or 1))
        super().__init__(max_workers=max_workers or default)
        self._waiting: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=_MOST_ELSEWHERE)

    def __enter__(self) -> Self:
        """Start the threads."""
        self._waiting.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        """End the threads, once their steps have ended."""
        super().__exit__(*error)
        self._waiting.__exit__(*error)

    def submit(
        self,
        task: Task[..., Any],
        parameters: dict[str, Any],
        wait_for: Iterable[PrefectFuture[Any]] | None = None,
        dependencies: dict[str, Any] | None = None,
    ) -> PrefectConcurrentFuture[Any]:
        """Submit a step, and report its end. A step that runs a model waits for its turn."""
        step: Step[Any] | None = getattr(task.fn, "step", None)
        here = step is None or whom_to_ask(step.work) is None
        runs_a_model = here and step is not None and step.runs_a_model is not None
        turn = Turn(expected=runs_a_model)
        if step is not None and runs_a_model:
            wait_for = [*(wait_for or ()), _ItsTurn(turn, step, parameters)]
        submit = super().submit if here else self._waiting.submit
        future = submit(task, parameters, wait_for, dependencies)
        future.add_done_callback(lambda _: turn.end())
        report_end(task, parameters, future)
        return future


class _ItsTurn(PrefectFuture[bool]):
    """A future for which Prefect waits, after the step's inputs, before it reports that the step runs."""

    def __init__(self, turn: Turn, step: Step[Any], parameters: dict[str, Any]) -> None:
        self._turn, self._step, self._parameters = turn, step, parameters

    @property
    def task_run_id(self) -> UUID:
        """An id that belongs to no task run."""
        return UUID(int=0)

    @property
    def state(self) -> PrefectState[bool]:
        """Always completed, because a turn never fails."""
        return Completed(data=True)

    def wait(self, timeout: float | None = None) -> None:
        """Start the turn, unless the step's result already exists."""
        given = resolve_futures_to_results(self._parameters)
        if self._step.runs_a_model and self._step.find(**given) is None:
            self._turn.begin(self._step.runs_a_model(**given), timeout)

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> bool:  # noqa: ARG002 (the base's)
        """Return the result in `state`."""
        return True

    def add_done_callback(self, fn: Callable[[PrefectFuture[bool]], None]) -> None:
        """Do nothing, because only the step's own thread waits for this future."""


def workers() -> TaskRunner[PrefectFuture[Any]]:
    """Return the pipeline's task runner, with the type that `flow` requires."""
    return cast(TaskRunner[PrefectFuture[Any]], Workers())


def report_end(task: Task[..., Any], parameters: Mapping[str, Any], future: PrefectFuture[Any]) -> None:
    """Tell the listeners how a step ended, once it has."""
    name = str(task.task_run_name or task.name).format(**parameters)
    model = parameters.get("name")

    def report(_: PrefectFuture[Any]) -> None:
        if not interrupted():  # then every step that ends has been ended
            state = _ended(future)
            result = future.result() if state in ("done", "cached") else None
            emit(Event(name, state, kind=task.name, model=model if isinstance(model, str) else None, result=result))

    future.add_done_callback(report)


def _ended(future: PrefectFuture[Any]) -> State:
    if isinstance(future, PrefectConcurrentFuture):
        wrapped = future.wrapped_future
        if wrapped.cancelled() or wrapped.exception() is not None:
            return "skipped"  # Prefect gave it up before it began, because the run has failed
    future.wait()  # returns at once, and updates the future's state from the thread's
    state = future.state
    if state.is_completed():
        return "cached" if state.name == "Cached" else "done"
    return "skipped" if state.is_pending() else "failed"
