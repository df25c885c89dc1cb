"""`rammerge serve`: Prefect and MLflow for more than one user or machine, on databases and files that are named."""

import configparser
import io
import os
import secrets
import socket
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from flows.servers.attending import attend, ended_by_user
from flows.servers.databases import MLFLOW_ADDRESS, Databases, require_migrated
from flows.servers.local import DATABASE, artifacts, mlflow_server, prefect_server
from rammerge.cli.terminal import say
from rammerge.errors import InputError
from rammerge.system.atomic import write_text
from rammerge.system.home import home
from rammerge.system.paths import expanded
from rammerge.system.servers import LOOPBACK, Server, free_port

# What makes the servers ask for passwords: Prefect for this NAME:PASSWORD, MLflow for the administrator's.
_PREFECT_SECRET, _MLFLOW_SECRET = "PREFECT_SERVER_API_AUTH_STRING", "MLFLOW_AUTH_ADMIN_PASSWORD"
_LEASES = "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"
_LEAST_LENGTH = 12  # MLflow's rule
_THIS_MACHINE = (LOOPBACK, "localhost", "::1")


@dataclass(frozen=True)
class Serving:
    """What is served, where.

    Attributes:
        databases: of the servers, migrated.
        host: the interface on which both listen.
        port: of Prefect; 0 for any free one.
        mlflow_port: of MLflow; 0 for any free one.
        files: directory or address (s3://BUCKET/PATH) of MLflow's files; None for one below rammerge's home.
    """

    databases: Databases
    host: str
    port: int
    mlflow_port: int
    files: str | None

    def serve(self) -> None:
        """Start both servers, print one line when both answer, and stop them on Ctrl-C or SIGTERM.

        Raises:
            InputError: passwords are missing, a port is taken, or migrations are due.
            RammergeError: a server died; the message names its log.
        """
        protected = require_passwords(self.host)
        files = self._files()
        port, mlflow_port = _usable_port(self.host, self.port), _usable_port(self.host, self.mlflow_port)
        require_migrated(self.databases)
        ended = ended_by_user()
        with ExitStack() as stack:
            say("starting the servers, which takes a few seconds ...")
            servers = [stack.enter_context(self._prefect(port)), stack.enter_context(self._mlflow(mlflow_port, files))]
            for server in servers:
                server.wait_until_healthy(ended)
            if not ended.is_set():
                print(_ready(servers, protected=protected), flush=True)
                attend(servers, ended)

    def _prefect(self, port: int) -> AbstractContextManager[Server]:
        settings = {
            DATABASE: self.databases.prefect,
            "PREFECT_SERVER_DATABASE_MIGRATE_ON_START": "false",
            # Leases in memory, Prefect's default, are forgotten at a restart while their slots stay taken.
            _LEASES: os.environ.get(_LEASES, "prefect.server.concurrency.lease_storage.filesystem"),
        }
        if self.host not in _THIS_MACHINE:
            # Browsers elsewhere ask for the API where they found the page.
            settings["PREFECT_SERVER_UI_API_URL"] = os.environ.get("PREFECT_SERVER_UI_API_URL", "/api")
        return prefect_server(port=port, dashboard=True, host=self.host, health="/api/ready", settings=settings)

    def _mlflow(self, port: int, files: str) -> AbstractContextManager[Server]:
        options, settings = ["--artifacts-destination", files], {MLFLOW_ADDRESS: self.databases.mlflow}
        if os.environ.get(_MLFLOW_SECRET):
            options += ["--app-name", "basic-auth"]
            settings["MLFLOW_AUTH_CONFIG_PATH"] = str(_write_settings_of_users(self.databases.users))
            # It protects the page on which an administrator adds a user. A new one only makes open pages stale.
            settings["MLFLOW_FLASK_SERVER_SECRET_KEY"] = os.environ.get(
                "MLFLOW_FLASK_SERVER_SECRET_KEY", secrets.token_urlsafe()
            )
        return mlflow_server(port=port, host=self.host, options=options, settings=settings)

    def _files(self) -> str:
        if self.files is None:
            return artifacts().as_uri()
        if "://" not in self.files:
            return expanded(self.files).absolute().as_uri()
        if self.files.startswith("s3://") and find_spec("boto3") is None:
            raise InputError(f"--artifacts {self.files} needs boto3, which is missing; `pip install 'rammerge[s3]'`")
        return self.files


def require_passwords(host: str) -> bool:
    """Tell whether the servers will ask for passwords, which they must on an interface that others reach.

    Raises:
        InputError: a password is missing, or none that the servers accept.
    """
    given = [name for name in (_PREFECT_SECRET, _MLFLOW_SECRET) if os.environ.get(name)]
    if not given and host in _THIS_MACHINE:
        return False
    missing = [name for name in (_PREFECT_SECRET, _MLFLOW_SECRET) if name not in given]
    if missing:
        why = f"only {given[0]} is set" if given else f"--host {host} lets other machines in"
        raise InputError(
            f"{why}, so one of the servers would ask for no password; set {' and '.join(missing)} ({_PREFECT_SECRET} "
            f"is NAME:PASSWORD)"
        )
    if not all(os.environ[_PREFECT_SECRET].partition(":")[::2]):
        raise InputError(
            f"{_PREFECT_SECRET} is not NAME:PASSWORD; clients set the same text as PREFECT_API_AUTH_STRING"
        )
    if len(os.environ[_MLFLOW_SECRET]) < _LEAST_LENGTH:
        raise InputError(f"{_MLFLOW_SECRET} is too short for MLflow; use {_LEAST_LENGTH} characters or more")
    if find_spec("flask_wtf") is None:
        raise InputError(
            "MLflow's passwords need flask-wtf, which is not installed; run `pip install 'rammerge[servers]'`"
        )
    return True


def _write_settings_of_users(database: str) -> Path:
    """Write MLflow's file of settings for users, in which there is no password, and return it."""
    settings = configparser.RawConfigParser()
    settings["mlflow"] = {
        "default_permission": "READ",
        "database_uri": database.replace("%", "%%"),  # MLflow reads it with interpolation
        "admin_username": "admin",
        "authorization_function": "mlflow.server.auth:authenticate_request_basic_auth",
        # Hashing a password takes longer than most answers. There is one process, so a changed password counts at once.
        "auth_cache_ttl_seconds": "60",
    }
    text = io.StringIO()
    settings.write(text)
    file = home() / "mlflow" / "users.ini"
    write_text(file, text.getvalue())
    return file


def _usable_port(host: str, port: int) -> int:
    if not port:
        return free_port()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else "65535 is the last"
        raise InputError(
            f"port {port} of {host} cannot be used ({reason}); name others with --port and --mlflow-port"
        ) from error
    return port


def _ready(servers: Sequence[Server], *, protected: bool) -> str:
    places = ", ".join(f"{title} at {server.url}" for title, server in zip(("Prefect", "MLflow"), servers, strict=True))
    return f"ready: {places}; {'with passwords' if protected else 'without passwords'}; Ctrl-C ends both"
