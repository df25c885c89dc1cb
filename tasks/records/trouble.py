"""What goes wrong with MLflow, in one sentence with the fix."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from rammerge.errors import InputError, RammergeError
from rammerge.system.redaction import redact

# A first call is to fail within seconds where nobody answers, whatever patience the later ones have.
_IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
_DRIVERS = {"psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}


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
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import NoSuchModuleError, SQLAlchemyError

    try:
        yield
    except MlflowException as error:
        raise _of_mlflow(error.get_http_status_code(), str(error)) from error
    except ModuleNotFoundError as error:
        package = _DRIVERS.get(str(error.name), str(error.name))
        raise InputError(
            f"{_where()} needs the database driver {error.name}, which is not installed; run `pip install {package}`"
        ) from error
    except NoSuchModuleError as error:
        raise InputError(f"{_where()} is of no known kind ({error}); correct MLFLOW_TRACKING_URI") from error
    except SQLAlchemyError as error:
        reason = redact(str(getattr(error, "orig", None) or error).strip().splitlines()[0])
        raise RammergeError(
            f"{_where()} cannot be opened ({reason}); start the database, or correct MLFLOW_TRACKING_URI"
        ) from error


def _of_mlflow(status: int, words: str) -> RammergeError:
    if "out-of-date database schema" in words:
        return InputError(
            f"{_where()} was written by a different MLflow; make a backup, then run `mlflow db upgrade {_address()}`"
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
    return RammergeError(f"{_where()} failed: {redact(' '.join(words.split()))[:300]}")


def _where() -> str:
    address = _address()
    return f"MLflow at {address}" if urlsplit(address).scheme in ("http", "https") else f"MLflow's store {address}"


def _address() -> str:
    return redact(os.environ.get("MLFLOW_TRACKING_URI", ""))
