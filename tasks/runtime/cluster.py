"""The steps of a run on the processes of a Dask or Ray cluster, which prefect-dask and prefect-ray send there.

What a run writes into MLflow stays in its own process (tasks.records). Workers need the same rammerge, and the
run's home on a file system that all share.
"""

import importlib
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

from prefect import Task
from prefect.context import FlowRunContext
from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner

from rammerge import store
from rammerge.errors import InputError
from rammerge.recipe import Compute, parse_runner
from rammerge.system.home import home
from rammerge.system.sizes import parse_size
from tasks.runtime.away import StandIn, heard
from tasks.runtime.environment import RUNNER
from tasks.runtime.limits import step_seconds
from tasks.runtime.runner import Workers, report_end
from tasks.runtime.step import Step

_STEPS = "tasks.steps."
_MOST = 8
_ANSWER_SECONDS = 5.0


def chosen(compute: Compute) -> str:
    """Return where steps run: the one place that decides between the environment and the recipe."""
    return parse_runner(os.environ.get(RUNNER) or compute.runner)


@contextmanager
def steps_on(compute: Compute) -> Iterator[None]:
    """Within the context the flow's steps run where `chosen` says, or on the task runner that the flow was given."""
    context, runner = FlowRunContext.get(), chosen(compute)
    own = context is not None and isinstance(context.task_runner, Workers)
    if context is None or context.flow is None or context.flow_run is None or (own and runner == "threads"):
        yield
        return
    with task_runner(runner) if own else nullcontext(context.task_runner) as cluster, Cluster(cluster) as both:
        # The flow's own code would be sent with each step.
        update = {"task_runner": both, "flow": StandIn(context.flow.name, step_seconds(), store.shared_url())}
        with heard(str(context.flow_run.id)), context.model_copy(update=update):
            yield


def require_cluster(compute: Compute) -> None:
    """Check that steps can run where `chosen` says.

    Raises:
        InputError: a package is missing, nobody answers there, or a worker has a different home.
    """
    runner = chosen(compute)
    if runner == "threads":
        return
    task_runner(runner)
    kind, _, address = runner.partition("://")
    if not address:
        return
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=_ANSWER_SECONDS):
            pass
    except (OSError, OverflowError) as error:
        raise InputError(f"no cluster answers at {runner} ({error}); start it, or correct compute.runner") from None
    if kind == "dask":
        _require_homes(address)


def _require_homes(address: str) -> None:
    distributed: Any = importlib.import_module("distributed")
    try:
        with distributed.Client(f"tcp://{address}", timeout=_ANSWER_SECONDS, set_as_default=False) as client:
            homes: dict[str, str] = client.run(_home)
    except (OSError, TimeoutError) as error:
        raise InputError(f"dask://{address} is no scheduler of Dask, or a worker of it failed ({error})") from None
    if not homes:
        raise InputError(f"the scheduler dask://{address} has no workers; start some with `dask worker {address}`")
    for worker, there in homes.items():
        if there != _home():
            raise InputError(
                f"the worker {worker} keeps what it makes in {there}, and this run in {_home()}; start it with "
                f"RAMMERGE_HOME={_home()}, on a file system that both share"
            )


def _home() -> str:
    return str(home())


class Cluster(Workers):
    """Sends steps to a started task runner, and does by its own threads what writes records."""

    def __init__(self, cluster: TaskRunner[Any]) -> None:
        super().__init__()
        self._cluster = cluster

    def submit(
        self,
        task: Task[..., Any],
        parameters: dict[str, Any],
        wait_for: Iterable[PrefectFuture[Any]] | None = None,
        dependencies: dict[str, Any] | None = None,
    ) -> Any:
        """Submit a step, and report its end."""
        step: Step[Any] | None = getattr(task.fn, "step", None)
        if step is None or not step.__module__.startswith(_STEPS):
            return super().submit(task, parameters, wait_for, dependencies)
        with _declared(self._cluster, step, parameters):
            future = self._cluster.submit(task, parameters, wait_for, dependencies)
        report_end(task, parameters, future)
        return future


def task_runner(runner: str) -> TaskRunner[Any]:
    """Return the task runner that a recipe or a flag names, not started.

    Raises:
        InputError: its package is not installed.
    """
    kind, _, address = runner.partition("://")
    return _KINDS[kind](address)


def _dask(address: str) -> TaskRunner[Any]:
    found = _package("prefect_dask", "dask").DaskTaskRunner
    if address:
        return cast(TaskRunner[Any], found(address=f"tcp://{address}"))
    local = {"n_workers": _processes(), "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    return cast(TaskRunner[Any], found(cluster_kwargs=local))


def _ray(address: str) -> TaskRunner[Any]:
    found = _package("prefect_ray", "ray").RayTaskRunner
    if address:
        return cast(TaskRunner[Any], found(address=f"ray://{address}"))
    local = {"num_cpus": _processes(), "include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    return cast(TaskRunner[Any], found(init_kwargs=local))


_KINDS: Mapping[str, Callable[[str], TaskRunner[Any]]] = {"dask": _dask, "ray": _ray}


def _package(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"steps on {extra} need {module.replace('_', '-')} ({error}); `pip install 'rammerge[{extra}]'`"
        ) from None


def _processes() -> int:
    """Return how many worker processes a cluster of this machine has."""
    return min(_MOST, max(2, len(os.sched_getaffinity(0))))


def _declared(cluster: TaskRunner[Any], step: Step[Any], parameters: Mapping[str, Any]) -> AbstractContextManager[Any]:
    """Return the context in which a step is submitted with what it needs of a worker."""
    compute = parameters.get("compute")
    if not isinstance(compute, Compute):
        return nullcontext()
    device = compute.kind_of_evaluation if step.runs_a_model else compute.merge_on
    gpus, memory = int(device != "cpu"), parse_size(compute.memory) if compute.memory else 0
    if type(cluster).__module__.startswith("prefect_ray"):
        context: Any = importlib.import_module("prefect_ray.context")
        needs = {"num_gpus": gpus, "memory": memory}
        return cast(AbstractContextManager[Any], context.remote_options(**{k: v for k, v in needs.items() if v}))
    dask: Any = importlib.import_module("dask")
    return cast(AbstractContextManager[Any], dask.annotate(resources={"GPU": gpus}) if gpus else nullcontext())
