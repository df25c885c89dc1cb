"""What goes wrong with MLflow, in one sentence with the fix."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from rammerge.errors import InputError, RammergeError
from rammerge.system.redaction import redact
from tasks.records.database import is_newer_schema
from tasks.records.importing import import_mlflow

# A first call is to fail within seconds where nobody answers, whatever patience the later ones have.
_IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
_KINDS = "set MLFLOW_TRACKING_URI to an address like http://HOST:PORT, sqlite:////FILE or postgresql://HOST/NAME"
# What databases say, whether it may pass, and what to do about it.
_DATABASE: tuple[tuple[str, type[RammergeError], str], ...] = (
    ("database is locked", RammergeError, "is locked by a different process; wait until that has finished, or end it"),
    ("disk is full", RammergeError, "has no room left on its disk; make room and run again"),
    (
        "readonly database",
        InputError,
        "cannot be written; get the right to write to it, or correct MLFLOW_TRACKING_URI",
    ),
    ("file is not a database", InputError, "is no SQLite database; correct MLFLOW_TRACKING_URI"),
    ("is malformed", InputError, "is damaged; restore a backup, or move the file away to begin without records"),
    ("unable to open database file", InputError, "is no file that can be opened; correct MLFLOW_TRACKING_URI"),
    ("no such column", InputError, "has tables that are not MLflow's; correct MLFLOW_TRACKING_URI"),
    ("authentication failed", InputError, "refuses the name or the password in MLFLOW_TRACKING_URI; correct them"),
    ("Access denied", InputError, "refuses the name or the password in MLFLOW_TRACKING_URI; correct them"),
)
_DRIVERS = {"psycopg": "'psycopg[binary]'", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}


@contextmanager
def impatient() -> Iterator[None]:
    """Let MLflow's calls of a server fail within seconds while the context lasts."""
    before = {name: os.environ.get(name) for name in _IMPATIENT}
    os.environ |= _IMPATIENT
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def explained() -> Iterator[None]:
    """Replace the errors of MLflow and of its database by sentences.

    Raises:
        InputError: MLflow will fail again: credentials, permission, a missing driver, an older schema.
        RammergeError: MLflow may recover: nothing answers, or the server or the database failed.
    """
    import_mlflow()
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

    try:
        yield
    except MlflowException as error:
        raise _of_mlflow(error.get_http_status_code(), str(error)) from error
    except ModuleNotFoundError as error:
        package = _DRIVERS.get(str(error.name), str(error.name))
        raise InputError(
            f"{_where()} needs the database driver {error.name}, which is not installed; run `pip install {package}`"
        ) from error
    except (NoSuchModuleError, ArgumentError) as error:
        raise InputError(f"{_where()} is of no known kind; {_KINDS}") from error
    except SQLAlchemyError as error:
        words = str(getattr(error, "orig", None) or error).strip()
        reason = redact(words.splitlines()[0])
        raise _of_database(words) or RammergeError(
            f"{_where()} cannot be opened ({reason}); start the database, or correct MLFLOW_TRACKING_URI"
        ) from error


def _of_mlflow(status: int, words: str) -> RammergeError:
    if "out-of-date database schema" in words:
        return _of_schema(words)
    if "unsupported URI" in words:
        return InputError(f"{_where()} is of no known kind; {_KINDS}")
    if "Invalid url" in words:
        return InputError(f"{_where()} is no valid address; {_KINDS}")
    if "filesystem tracking backend" in words:
        return InputError(
            f"{_where()} is a directory, to which MLflow no longer writes; {_KINDS}: `mlflow migrate-filestore` moves "
            "the records of a directory into a database"
        )
    if status == 401:
        return InputError(
            f"{_where()} refuses the credentials (401); set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
            "MLFLOW_TRACKING_TOKEN"
        )
    if status == 403:
        return InputError(f"{_where()} does not allow this user to do it (403); ask whoever runs it for permission")
    if "Max retries exceeded" in words or "Failed to establish" in words or "timed out" in words:
        return RammergeError(f"{_where()} does not answer; start it, or correct MLFLOW_TRACKING_URI")
    return _of_database(words) or RammergeError(f"{_where()} failed: {redact(' '.join(words.split()))[:300]}")


def _of_schema(words: str) -> InputError:
    from mlflow.version import VERSION

    found = re.search(r"found version (\w+)", words)
    if found and is_newer_schema(found[1]):
        return InputError(
            f"{_where()} was written by a newer MLflow than {VERSION}, which is installed here; use that one, or "
            "correct MLFLOW_TRACKING_URI"
        )
    address = os.environ.get("MLFLOW_TRACKING_URI", "")
    # The command has to be exact, and must not show a password.
    shown = address if redact(address) == address else '"$MLFLOW_TRACKING_URI"'
    return InputError(f"{_where()} was written by an older MLflow; make a backup, then run `mlflow db upgrade {shown}`")


def _of_database(words: str) -> RammergeError | None:
    """Return the error for what a database says; None if it says nothing known."""
    for phrase, kind, sentence in _DATABASE:
        if phrase in words:
            return kind(f"{_where()} {sentence}")
    return None


def _where() -> str:
    address = _address()
    return f"MLflow at {address}" if urlsplit(address).scheme in ("http", "https") else f"MLflow's store {address}"


def _address() -> str:
    return redact(os.environ.get("MLFLOW_TRACKING_URI", ""))
