"""The Prefect API that runs of this process use."""

import os
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING
from uuid import UUID

from flows.servers.dashboards import running_dashboard
from flows.servers.local import prefect_server
from rammerge.errors import InputError
from rammerge.system.redaction import redact
from rammerge.system.servers import free_port
from tasks.records import pages

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import TaskRun

_ANSWER_SECONDS = 5.0
_RECORDING_SECONDS = 5.0
_PAGE = 200


@contextmanager
def prefect_api() -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Make a Prefect API available while the context lasts: the user's, that of `rammerge ui`, or one of our own.

    Yields a function that waits until the API answers and returns the context in which Prefect uses it. So imports go
    on beside the server's start. Our own server rather than Prefect's temporary one: its log stays off the terminal,
    and a kill of this process ends it too.
    """
    if _is_configured():
        require_prefect()
        yield nullcontext
    elif address := running_dashboard():
        yield lambda: _using(address, stays=True)
    else:
        with prefect_server(port=free_port(), dashboard=False) as server:

            def answering() -> AbstractContextManager[None]:
                server.wait_until_healthy()
                return _using(server.url, stays=False)

            yield answering


def require_prefect() -> None:
    """Ask the Prefect API that the user has configured, if any, for a sign of life with the credentials of a run.

    Raises:
        InputError: it does not answer, or refuses: the sentence has the fix.
    """
    if not _is_configured():
        return
    import httpx
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_KEY, PREFECT_API_URL

    if (api := PREFECT_API_URL.value()) is None:
        return  # a profile without an API: Prefect starts one of its own
    secret, key = PREFECT_API_AUTH_STRING.value(), PREFECT_API_KEY.value()
    basic = f"Basic {b64encode(secret.get_secret_value().encode()).decode()}" if secret else None
    header = f"Bearer {key.get_secret_value()}" if key else basic
    where, headers = f"Prefect at {redact(api)}", {"Authorization": header} if header else {}
    try:
        status = httpx.post(f"{api}/flows/count", json={}, headers=headers, timeout=_ANSWER_SECONDS).status_code
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = redact(str(error)) or type(error).__name__
        raise InputError(f"{where} does not answer ({reason}); start it, or correct PREFECT_API_URL") from error
    if status in (401, 403):
        raise InputError(
            f"{where} refuses the credentials ({status}); set PREFECT_API_AUTH_STRING or PREFECT_API_KEY as it asks for"
        )
    if status >= 400:
        raise InputError(f"{where} answers with status {status}; does PREFECT_API_URL end in /api?")


def explained(error: Exception) -> str | None:
    """Return the sentence for a call of the Prefect API that failed while a run went on; None for any other error."""
    httpx = sys.modules.get("httpx")
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):
        return explained(error.__cause__)  # Prefect's own words for a server that it cannot reach
    if httpx is None or not isinstance(error, httpx.HTTPError):
        return None
    from prefect.settings import PREFECT_API_URL

    api = PREFECT_API_URL.value()
    with suppress(RuntimeError):  # an error without a request
        if api and str(error.request.url).startswith(api):
            status = getattr(getattr(error, "response", None), "status_code", None)
            failed = f"failed ({status})" if status else "does not answer any more"
            return f"Prefect at {redact(api)} {failed}; see its log, and run again: what was finished is kept"
    return None


def _is_configured() -> bool:
    """Say whether the user has chosen an API, by a variable or, where Prefect is imported already, by its settings."""
    if {"PREFECT_API_URL", "PREFECT_PROFILE"} & os.environ.keys():
        return True
    if "prefect" not in sys.modules:
        return False
    from prefect.settings import PREFECT_API_URL

    return PREFECT_API_URL.value() is not None


@contextmanager
def _using(server: str, *, stays: bool) -> Iterator[None]:
    """While the context lasts, have Prefect use a server, which `stays` when the run ends, or ends with it."""
    from prefect.logging.handlers import APILogWorker
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        PREFECT_LOCAL_STORAGE_PATH,
        PREFECT_UI_URL,
        temporary_settings,
    )

    # Not by variables: a Prefect that was imported before no longer reads them, and would remember this server's.
    settings = {
        PREFECT_API_URL: f"{server}/api",
        PREFECT_LOCAL_STORAGE_PATH: os.environ["PREFECT_LOCAL_STORAGE_PATH"],
        # Our own server has no dashboard.
        PREFECT_UI_URL: os.environ.get("PREFECT_UI_URL") or pages.dashboards().prefect,
    }
    # Heartbeats tell a server that a run lives. One that ends with the run hears of its death in no case, and Prefect
    # waits up to a second at the end of a run for the thread that sends them.
    unless_set = {} if stays else {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
    with temporary_settings(settings, set_defaults=unless_set):
        try:
            yield
        finally:
            APILogWorker.drain_all()  # ends all of Prefect's services, which would talk to this server in the next run


def wait_until_recorded(flow_run: UUID, steps: int) -> bool:
    """Wait until Prefect's database has the log and the end of every step, which it learns a moment after the flow.

    Args:
        flow_run: that has ended.
        steps: how many of its steps have ended.

    Returns:
        Whether it has, a few seconds after the flow.
    """
    from prefect.client.orchestration import get_client
    from prefect.logging.handlers import APILogWorker

    APILogWorker.drain_all()
    deadline = time.monotonic() + _RECORDING_SECONDS
    with get_client(sync_client=True) as client:
        while time.monotonic() < deadline:
            known = _task_runs(client, flow_run)
            if len(known) >= steps and all(run.state is not None and run.state.is_final() for run in known):
                return True
            time.sleep(0.05)
    return False


def _task_runs(client: "SyncPrefectClient", flow_run: UUID) -> "list[TaskRun]":
    """Return the steps of a run that Prefect knows of, of which it tells 200 at a time."""
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    which = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run]))
    known: list[TaskRun] = []
    while True:
        page = client.read_task_runs(flow_run_filter=which, limit=_PAGE, offset=len(known))
        known += page
        if len(page) < _PAGE:
            return known
