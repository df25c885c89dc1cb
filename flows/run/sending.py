"""Steps on other workers: Prefect is asked to run each in the deployment of its pool, and the run waits for its end.

What a step makes is in the store, which all workers share, so only its arguments travel, as JSON. A worker that dies is
noticed by the lock that its run held (`flows.run.alive`). The step is then tried again, and goes on where it was.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from prefect import State, get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import WorkerStatus
from prefect.deployments import run_deployment
from prefect.runtime import flow_run
from prefect.serializers import JSONSerializer
from prefect.states import Cancelling

from flows.run.alive import close_dead, is_alive
from rammerge import store
from rammerge.errors import InputError, RammergeError
from rammerge.recipe import Compute
from rammerge.system.durations import parse_duration
from rammerge.system.home import home
from rammerge.system.interrupts import hearing, interrupted
from tasks.runtime.elsewhere import Ask, Asked, elsewhere
from tasks.runtime.progress import progress

FLOW = "step"  # whose deployments are called as their pools
BAD_INPUT = "BadInput"  # the state of a step's flow that ended with an InputError
_TRIES = 3
_POLL_SECONDS = 1.0
_CANCEL_SECONDS = 2.0


@contextmanager
def in_pools(compute: Compute) -> Iterator[None]:
    """Within the context, have steps run on the work pools that the recipe names for them."""
    places = threading.BoundedSemaphore(compute.workers.at_once)
    asking: dict[str, Ask] = {
        work: _Pool(pool, compute.workers.wait, compute.timeout, places) for work, pool in compute.workers.named.items()
    }
    with elsewhere(asking):
        yield


@dataclass(frozen=True)
class _Pool:
    """A pool that is asked to run steps.

    Attributes:
        name: its name.
        wait: how long there may be no sign of life from a worker.
        timeout: how long a step may take, once it runs.
        places: for the steps that the run gives to pools at a time.
    """

    name: str
    wait: str
    timeout: str
    places: threading.BoundedSemaphore

    def __call__(self, asked: Asked) -> None:
        """Have a step run.

        Raises:
            RammergeError: it failed, or no worker ran it.
            InputError: it failed with one.
        """
        with self.places:
            for _ in range(_TRIES):
                state = self._run(asked)
                if not state.is_crashed():
                    break
        if not state.is_completed():
            kind = InputError if state.name == BAD_INPUT else RammergeError
            said = state.message or state.name or "no reason given"
            raise kind(f"the step '{asked.name}' failed on the pool '{self.name}': {said}")

    def _run(self, asked: Asked) -> State[Any]:
        """Ask once, and return how it ended. If this run ends before, so does the other."""
        run: Any = run_deployment(  # only in a coroutine does it return one
            f"{FLOW}/{self.name}",
            parameters={
                "kind": asked.kind,
                "name": asked.name,
                "arguments": written(asked.arguments),
                "asked_by": str(flow_run.id),
                "home": str(home()),
                "timeout": self.timeout,
                "shared": store.shared_url(),
            },
            flow_run_name=asked.name,
            timeout=0,
        )
        context = copy_context()  # knows Prefect's address
        ended = False
        try:
            with hearing(lambda: _cancel_soon(context.copy(), run.id)), get_client(sync_client=True) as client:
                state = _Watch(client, self, asked.name, run.id).until_ended()
                ended = True
                return state
        finally:
            if not ended:
                _cancel_soon(context.copy(), run.id)


@dataclass
class _Watch:
    """Waits for a step's run, as long as there are signs of life."""

    client: SyncPrefectClient
    pool: _Pool
    step: str
    run: UUID
    seen: float = field(default_factory=time.monotonic)

    def until_ended(self) -> State[Any]:
        """Return the run's last state.

        Raises:
            RammergeError: there was no sign of life for too long, or this run was interrupted.
        """
        shown = ""
        while True:
            close_dead()
            state = self.client.read_flow_run(self.run).state
            if state is not None and state.is_final():
                return state
            if interrupted():
                raise RammergeError(f"the run was interrupted while '{self.step}' ran on the pool '{self.pool.name}'")
            self._require_life(waits=state is None or state.is_scheduled())
            if state is not None and state.name not in (shown, None):
                shown = state.name or ""
                progress()(None, f"{shown.lower()} on the pool {self.pool.name}")
            time.sleep(_POLL_SECONDS)

    def _require_life(self, *, waits: bool) -> None:
        """Look for a worker for a run that waits for one, and else for the lock of the run."""
        if self._is_served() if waits else is_alive(self.run):
            self.seen = time.monotonic()
        elif time.monotonic() - self.seen > parse_duration(self.pool.wait):
            raise RammergeError(
                f"no worker of the pool '{self.pool.name}' gave the step '{self.step}' a sign of life for "
                f"{self.pool.wait}; start one with `prefect worker start --pool {self.pool.name}`, or raise "
                "compute.workers.wait, and run again"
            )

    def _is_served(self) -> bool:
        return is_served(self.client, self.pool.name)


def is_served(client: SyncPrefectClient, pool: str) -> bool:
    """Tell whether a worker of the pool is online."""
    return any(worker.status is WorkerStatus.ONLINE for worker in client.read_workers_for_work_pool(pool))


def written(arguments: Any) -> Any:
    """Return a step's arguments as JSON, in which each model has its class, as in Prefect's own results."""
    return json.loads(JSONSerializer().dumps(dict(arguments)))


def read(arguments: Any) -> dict[str, Any]:
    """Return the arguments that `written` wrote."""
    found: dict[str, Any] = JSONSerializer().loads(json.dumps(arguments).encode())
    return found


def _cancel_soon(context: Any, run: UUID) -> None:
    """Ask Prefect to end a run. A server that does not answer must not keep this process."""
    asking = threading.Thread(target=context.run, args=(_cancel, run), daemon=True)
    asking.start()
    asking.join(_CANCEL_SECONDS)


def _cancel(run: UUID) -> None:
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run, Cancelling(message="the run that asked for it has ended"))
