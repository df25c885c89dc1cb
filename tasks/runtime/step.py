"""One step of the pipeline: a Prefect task whose output is an entry of the content-addressed store.

A step is a function that writes files into a directory. `step` makes a task from it. The task's cache key is the digest
of the step's kind, the version of its algorithm and all its arguments; a model is identified by its content, not by its
path or name. So no run does the same work twice. Prefect's own record of a result is trusted only while the store still
has the entry intact.
"""

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast

from opentelemetry import trace
from prefect import Task, get_run_logger, task
from prefect.context import TaskRunContext
from prefect.futures import PrefectFuture
from prefect.runtime import task_run
from prefect.states import Completed

from rammerge import store
from rammerge.errors import RammergeError
from rammerge.system.home import home
from rammerge.system.redaction import without_secrets
from tasks.runtime.away import away, follow_run
from tasks.runtime.elsewhere import Asked, Work, whom_to_ask
from tasks.runtime.limits import limited
from tasks.runtime.progress import running
from tasks.runtime.result import Result, identity
from tasks.runtime.retries import retrying
from tasks.runtime.turns import Claim

P = ParamSpec("P")
R = TypeVar("R", bound=Result)


class Step(Generic[R]):
    """A step: the function that does the work, the Prefect task around it, and the key that its output has.

    Attributes:
        kind: the step's name, which is also its kind in the store.
        task: the Prefect task that a flow submits.
        runs_a_model: None, or for a step that takes turns with others (see tasks.runtime.turns) a function that tells
            from its arguments what the model needs.
        work: what a worker must be able to do to run it; None for a step that the run itself does.
    """

    def __init__(
        self,
        build: Callable[..., None],
        *,
        kind: str,
        version: int | tuple[int, ...],
        run_name: str,
        result: type[R],
        ignore: Collection[str],
        retries: int,
        runs_a_model: Callable[..., Claim] | None,
        work: Work | None,
    ) -> None:
        self.__doc__, self.__module__, self._name = build.__doc__, build.__module__, build.__qualname__
        signature = inspect.signature(build)
        self._signature = signature.replace(parameters=list(signature.parameters.values())[1:])  # without the directory
        if unknown := sorted(set(ignore) - self._signature.parameters.keys()):
            raise TypeError(f"step '{kind}' ignores '{unknown[0]}', which is not a parameter of {build.__qualname__}")
        self.kind, self.runs_a_model, self.work = kind, runs_a_model, work
        self._build, self._version, self._result, self._ignore = build, version, result, frozenset(ignore)
        # Prefect keeps a result as JSON with the name of its class. A result that a different release kept under a
        # different name, or with different fields, must not be found.
        described = {"class": f"{result.__module__}.{result.__qualname__}", "schema": result.model_json_schema()}
        self._shape = store.key_of(kind, 0, described)[:8]
        self.task = self._task(run_name, retries)

    def __reduce__(self) -> str:
        """Return the step's name in its module, so that other processes take it from there, with the module's state."""
        return self._name

    def submit(self, *args: Any, **kwargs: Any) -> PrefectFuture[R]:
        """Start the step inside a flow. An argument may be, or contain, the future of another step."""
        return cast(PrefectFuture[R], self.task.submit(*args, **kwargs))

    def find(self, **given: Any) -> R | None:
        """Return the result if the work is already done, else None. Ignored parameters may be left out.

        What another machine did is brought here from the shared store.
        """
        entry = store.bring(self.kind, self.key(**given))
        return self._read(entry) if entry is not None else None

    def exists(self, **given: Any) -> bool:
        """Tell whether the work is already done, here or on another machine. Nothing is brought here for the answer."""
        key = self.key(**given)
        if (entry := store.find(self.kind, key)) is not None and self._holds(entry):
            return True
        return store.has(self.kind, key)

    def make_together(
        self, given: Mapping[str, Mapping[str, Any]], build: Callable[[Mapping[str, Path]], Iterable[str]]
    ) -> tuple[list[str], list[str]]:
        """Do the work of several such steps at once, for a step before them.

        Args:
            given: by name the arguments of each; ignored parameters may be left out.
            build: writes what is missing. It gets a directory by name, and yields each name as soon as that is done.

        Returns:
            The keys of all outputs, and of those that were made now.
        """
        names = {self.key(**arguments): name for name, arguments in given.items()}

        def build_by_key(directories: Mapping[str, Path]) -> Iterable[str]:
            keys = {names[key]: key for key in directories}
            for name in build({name: directories[key] for name, key in keys.items()}):
                yield keys[name]

        entries = store.materialise_together(self.kind, names, build_by_key, valid=self._holds)
        return list(names), [key for key, entry in entries.items() if not entry.reused]

    def key(self, **given: Any) -> str:
        """Return the key of the output in the store. Ignored parameters may be left out."""
        settled = {
            name: given.get(name, parameter.default)
            for name, parameter in self._signature.parameters.items()
            if name not in self._ignore
        }
        return store.key_of(self.kind, self._version, {name: identity(value) for name, value in settled.items()})

    def _read(self, entry: store.Entry) -> R | None:
        """Return the entry's result if it still holds. An entry of a different release may be unreadable: None."""
        try:
            result = self._of(entry)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return result if result.holds() else None

    def _of(self, entry: store.Entry) -> R:
        return self._result.read(entry).model_copy(update={"seconds": entry.seconds})

    def _holds(self, entry: store.Entry) -> bool:
        return self._read(entry) is not None

    def _cache_key(self, _: TaskRunContext, given: dict[str, Any]) -> str:
        follow_run()
        key = self.key(**given)
        entry = store.find(self.kind, key)
        # What an earlier run could not put into the shared store is put there by the step.
        valid = entry is not None and self._holds(entry) and not store.is_pending(self.kind, key)
        generation = store.generation(self.kind, key, valid=valid)
        # Several homes may share a Prefect server, and a result contains a path below one of them.
        place = store.key_of("home", 0, {"path": str(home())})[:8]
        return f"{self.kind}-{key}-{generation}-{self._shape}-{place}"

    @without_secrets
    def _run(self, *args: Any, **kwargs: Any) -> Any:
        given = self._signature.bind(*args, **kwargs)
        given.apply_defaults()
        key = self.key(**given.arguments)
        name = str(task_run.name or self.kind)
        with away(name), running(name):
            entry = self._made(key, given)
        get_run_logger().info("%s %s", "found" if entry.reused else "wrote", entry.path)
        trace.get_current_span().set_attributes({"rammerge.key": key, "rammerge.cached": entry.reused})
        result = self._of(entry).found() if entry.reused else self._of(entry)
        # A different run may have done the work without a record in this Prefect database: report it as Prefect would.
        # What a step before this one did is work of this run.
        made = any(value.has_made(key) for value in given.arguments.values() if isinstance(value, Result))
        return Completed(name="Cached", data=result) if entry.reused and not made else result

    def _made(self, key: str, given: inspect.BoundArguments) -> store.Entry:
        """Make the output, here or on the worker that the run asks, unless the store has it."""
        name = str(task_run.name or self.kind)
        if (ask := whom_to_ask(self.work)) is None:
            with limited(name):
                return store.materialise(
                    self.kind, key, lambda out: self._build(out, *given.args, **given.kwargs), valid=self._holds
                )
        if (found := store.find(self.kind, key)) is not None and self._holds(found):
            return found
        ask(Asked(self.kind, name, given.arguments))
        if (entry := store.find(self.kind, key)) is None or not self._holds(entry):
            raise RammergeError(f"a worker ran the step '{name}', and its output is not in {home()}; let it share that")
        return replace(entry, reused=False)

    def _task(self, run_name: str, retries: int) -> Task[..., R]:
        @wraps(self._build)
        def run(*args: Any, **kwargs: Any) -> Any:
            return self._run(*args, **kwargs)

        del cast(Any, run).__wrapped__  # which would be sent to other processes with everything that it names
        cast(Any, run).__signature__ = self._signature
        cast(Any, run).step = self  # for the task runner
        # No tags: for each tag Prefect asks its server for a concurrency slot, which takes seconds per step.
        return task(
            name=self.kind,
            task_run_name=run_name,
            cache_key_fn=self._cache_key,
            persist_result=True,
            result_serializer="json",
            **(retrying(retries) if retries else {}),
        )(run)


def step(
    kind: str,
    *,
    version: int | tuple[int, ...],
    run_name: str,
    result: type[R],
    ignore: Collection[str] = (),
    retries: int = 0,
    runs_a_model: Callable[..., Claim] | None = None,
    work: Work | None = None,
) -> Callable[[Callable[Concatenate[Path, P], None]], Step[R]]:
    """Make a step from a function that writes its output into the directory in its first argument.

    Args:
        kind: the step's name, which is also its kind in the store.
        version: raise this when the function's output changes for the same input.
        run_name: template of the task run's name, filled from the function's parameters.
        result: the class that reads the result from the entry and tells whether it still holds.
        ignore: parameters without influence on the output, such as a label or a memory limit.
        retries: attempts after a failure other than InputError, with growing and jittered delays.
        runs_a_model: for a step that runs a model: from its arguments, what the model needs.
        work: for a step that may run on a worker of another pool: what that must be able to do.

    Raises:
        TypeError: `ignore` names a parameter that the function does not have.
    """

    def decorate(build: Callable[Concatenate[Path, P], None]) -> Step[R]:
        return Step(
            build,
            kind=kind,
            version=version,
            run_name=run_name,
            result=result,
            ignore=ignore,
            retries=retries,
            runs_a_model=runs_a_model,
            work=work,
        )

    return decorate
