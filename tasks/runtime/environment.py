"""The environment variables that Prefect and MLflow read.

Their databases are kept below rammerge's home; telemetry and chatter are off. Variables that the user has set stay.
"""

import os
from pathlib import Path

from rammerge.errors import InputError
from rammerge.system.home import home
from rammerge.system.redaction import redact_log_records
from tasks.runtime.logs import log_as_wished
from tasks.runtime.tracing import trace_as_wished

# What runs steps, whatever the recipe says: set by the flag of `rammerge run`, or for a deployment.
RUNNER = "RAMMERGE_RUNNER"

_PROFILE = {"PREFECT_HOME", "PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH"}
_ENDPOINTS = {"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "MLFLOW_S3_ENDPOINT_URL"}
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def activate() -> None:
    """Set the variables that the environment does not have, and make the directories that they name.

    Every entry point calls this: each command and each flow. Prefect reads its settings when it is imported, so
    commands call it before that. A flow that a worker runs has the worker's settings.

    Raises:
        InputError: rammerge's home cannot be written, or a variable about logs or traces asks for what cannot be.
    """
    prefect_home = home() / "prefect"
    _make(prefect_home / "storage", home() / "mlflow")
    if not _PROFILE & os.environ.keys():
        os.environ["PREFECT_HOME"] = str(prefect_home)
    for name, value in _defaults(prefect_home).items():
        os.environ.setdefault(name, value)
    _reach_loopback_directly()
    redact_log_records()
    log_as_wished()
    trace_as_wished()


def _make(*directories: Path) -> None:
    try:
        for directory in directories:
            directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{home()} cannot be written ({error.strerror}); set RAMMERGE_HOME to a directory that can be"
        ) from None


def _defaults(prefect_home: Path) -> dict[str, str]:
    """Return the variables with the values that they have unless the user has set them."""
    defaults = {
        # Runs started by hand and by a worker keep results in one place, so that each finds the other's.
        "PREFECT_LOCAL_STORAGE_PATH": str(prefect_home / "storage"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "90",
        "DO_NOT_TRACK": "1",
        "MLFLOW_TRACKING_URI": f"sqlite:///{home() / 'mlflow' / 'mlflow.db'}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # Steps that fail are tried again as a whole: retries inside retries take a quarter of an hour to say why.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        # These lines come in the middle of others, and tell the credentials of the address.
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # one bar for each file
        "TOKENIZERS_PARALLELISM": "false",
    }
    if _ENDPOINTS & os.environ.keys():
        # Stores other than AWS refuse the checksums that boto3, with which MLflow reaches them, adds by default.
        checksums = ("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION")
        defaults |= dict.fromkeys(checksums, "when_required")
    return defaults


def _reach_loopback_directly() -> None:
    """Exempt this machine from the user's proxy, which cannot reach servers that listen on loopback."""
    from urllib.request import getproxies  # which imports an HTTP client, and every command imports this module

    proxies = getproxies()
    if not proxies.keys() - {"no"}:
        return
    exempt = [host for host in proxies.get("no", "").split(",") if host.strip()]
    if "*" not in exempt:
        hosts = ",".join([*exempt, *(host for host in _LOOPBACK if host not in exempt)])
        os.environ |= {"no_proxy": hosts, "NO_PROXY": hosts}  # some libraries read only one of the two


def tracking_server() -> str | None:
    """Return the address of the user's MLflow server, or None where MLflow is used through its database."""
    address = os.environ.get("MLFLOW_TRACKING_URI", "")
    return address if address.startswith(("http://", "https://")) else None


def quiet() -> None:
    """Keep log lines off the terminal; Prefect's database keeps its own for the dashboard."""
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "CRITICAL")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
