"""One step of the pipeline: a Prefect task whose output is an entry of the content-addressed store.

A step is a function that writes files into a directory. `step` makes the task: its cache key is the digest of the
step's kind, the version of its algorithm and everything it is given (a model counts by its content, not by its path or
name), so the same work is never done twice, by whichever run. Prefect's own record of the result is trusted only as
long as the store still holds the entry, unharmed.
"""

import inspect
import os
from collections.abc import Callable, Collection, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast, get_type_hints

from prefect import State, Task, get_run_logger, task
from prefect.client.schemas.objects import TaskRun
from prefect.context import TaskRunContext
from prefect.runtime import task_run
from prefect.states import Completed
from prefect.tasks import exponential_backoff
from pydantic import BaseModel, ConfigDict

from rammerge import store
from rammerge.errors import InputError
from tasks.runtime.progress import running

P = ParamSpec("P")
R = TypeVar("R", bound="Result")

DOWNLOAD_RETRIES, TRACKING_RETRIES = 3, 3


class Result(BaseModel):
    """What a step hands on: small, so that Prefect can keep it; the content lies in the store."""

    model_config = ConfigDict(frozen=True)

    path: Path
    digest: str

    @property
    def identity(self) -> Any:
        """What this counts as in the cache key of a later step: JSON."""
        return self.digest


def step(
    kind: str,
    *,
    version: int,
    run_name: str,
    result: Callable[[store.Entry], R],
    ignore: Collection[str] = (),
    valid: Callable[[store.Entry], bool] = lambda _: True,
    retries: int = 0,
) -> Callable[[Callable[Concatenate[Path, P], None]], Task[..., R]]:
    """Make a task of a function that writes its output into the directory given first.

    Args:
        kind: the step's name, and its room in the store.
        version: raise it whenever the function's output changes for the same input.
        run_name: template of the task run's name over the function's parameters.
        result: makes the typed result from the entry.
        ignore: parameters that do not influence the output, such as a label or a memory bound.
        valid: whether an entry still holds in the world outside the store, such as a registered version.
        retries: attempts after a failure other than InputError, with growing and jittered delays.
    """

    def decorate(build: Callable[Concatenate[Path, P], None]) -> Task[..., R]:
        signature = inspect.signature(build)
        parameters = list(signature.parameters.values())[1:]
        # A result that an older release left in Prefect's cache may lack what this one wants to know.
        shape = store.key_of(kind, 0, get_type_hints(result)["return"].model_json_schema())[:8]

        def key_of(given: Mapping[str, Any]) -> str:
            return store.key_of(kind, version, {k: _identity(v) for k, v in given.items() if k not in ignore})

        def holds(entry: store.Entry) -> bool:
            return _can_read(result, entry) and valid(entry)

        def cache_key(_: TaskRunContext, given: dict[str, Any]) -> str:
            key = key_of(given)
            entry = store.find(kind, key)
            attempts = store.attempts(kind, key, valid=entry is not None and holds(entry))
            return f"{kind}-{key}-{attempts}-{shape}"

        @wraps(build)
        def run(*args: Any, **kwargs: Any) -> Any:
            given = run_signature.bind(*args, **kwargs)
            given.apply_defaults()
            key = key_of(given.arguments)
            with running(str(task_run.name or kind)):
                entry = store.materialise(kind, key, lambda directory: build(directory, *args, **kwargs), valid=holds)
            get_run_logger().info("%s %s", "found" if entry.reused else "wrote", entry.path)
            made = result(entry)
            # Another run may have done the work without this Prefect database knowing: say so, as Prefect itself would.
            return Completed(name="Cached", data=made) if entry.reused else made

        run_signature = signature.replace(parameters=parameters)
        cast(Any, run).__signature__ = run_signature  # the directory is ours to give
        # No tags: Prefect asks its server for a concurrency slot for each, which takes seconds a step.
        return task(
            name=kind,
            task_run_name=run_name,
            cache_key_fn=cache_key,
            persist_result=True,
            result_serializer="json",
            **(retrying(retries) if retries else {}),
        )(run)

    return decorate


def _can_read(result: Callable[[store.Entry], R], entry: store.Entry) -> bool:
    """Say whether this release understands the entry; one that another release wrote is made again."""
    try:
        result(entry)
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return True


def _identity(value: Any) -> Any:
    if hasattr(value, "identity"):
        return value.identity
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return [[key, _identity(item)] for key, item in value.items()]  # the order of agents counts
    if isinstance(value, list | tuple):
        return [_identity(item) for item in value]
    return value


def retrying(times: int) -> dict[str, Any]:
    """Return a Prefect task's settings for `times` more attempts: 2, 4, 8, ... seconds apart, jittered.

    Bad input stays bad and is not tried again; a network or a busy database may recover.
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
