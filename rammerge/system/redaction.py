"""Keep secrets out of what people may read: terminals, logs, records and process lists."""

import logging
import os
import re
from collections.abc import Callable, Iterator
from functools import wraps
from typing import ParamSpec, TypeVar

from rammerge.errors import InputError, RammergeError

HIDDEN = "***"

# Everything between `scheme://` and the last @ before the path: a name, a password, or a token.
_USERINFO = re.compile(r"(?<=://)[^/\s'\"]+@")
_PARAMETER = re.compile(r"([?&](?:\w*token|password|secret|api_?key|sig(?:nature)?)=)[^&\s'\"]+", re.IGNORECASE)
_HEADER = re.compile(r"\b((?:Bearer|Basic) )[A-Za-z0-9._~+/=-]{8,}")
_SECRET_NAME = re.compile(r"(^|_)(TOKEN|PASSWORD|PASSWD|SECRET|KEY|AUTH_STRING|CREDENTIALS)(_|$)")
# Shorter values are switches such as "1" and "true", which stand in many texts by chance.
_LEAST_LENGTH = 6

P = ParamSpec("P")
R = TypeVar("R")


def redact(text: str) -> str:
    """Return `text` with `***` in place of credentials in addresses and headers, and of the environment's secrets.

    A variable holds a secret if its name says so, such as HF_TOKEN or MLFLOW_TRACKING_PASSWORD.
    """
    text = _USERINFO.sub(f"{HIDDEN}@", text)
    text = _PARAMETER.sub(rf"\1{HIDDEN}", text)
    text = _HEADER.sub(rf"\1{HIDDEN}", text)
    for secret in _environment():
        text = text.replace(secret, HIDDEN)
    return text


def without_credentials(address: str) -> str:
    """Return `address` without a name and a password, for a link that people open."""
    return _USERINFO.sub("", address)


def names_a_secret(variable: str) -> bool:
    """Tell whether `variable` can be the name of an environment variable that `redact` takes for a secret."""
    return re.fullmatch(r"[A-Z_][A-Z0-9_]*", variable) is not None and _SECRET_NAME.search(variable) is not None


def redact_log_records() -> None:
    """Redact every log record of this process from now on, before any handler sees it."""
    make = logging.getLogRecordFactory()
    if not isinstance(make, _RedactedRecords):
        logging.setLogRecordFactory(_RedactedRecords(make))


class _RedactedRecords:
    """A factory of log records without secrets."""

    def __init__(self, make: Callable[..., logging.LogRecord]) -> None:
        self._make = make
        self._formatter = logging.Formatter()

    def __call__(self, *args: object, **kwargs: object) -> logging.LogRecord:
        record = self._make(*args, **kwargs)
        message = record.getMessage()
        if (shown := redact(message)) != message:
            record.msg, record.args = shown, ()
        if record.exc_info and record.exc_info[0] is not None:
            record.exc_text = redact(self._formatter.formatException(record.exc_info))  # formatters use it as it is
        return record


def without_secrets(function: Callable[P, R]) -> Callable[P, R]:
    """Redact what the function raises: a failure's words are shown to everyone who may see the run."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            words = str(error)
            if (shown := redact(words)) == words:
                raise
            kind = InputError if isinstance(error, InputError) else RammergeError
            raise kind(shown) from None

    return call


def _environment() -> Iterator[str]:
    values = {value for name, value in os.environ.items() if _SECRET_NAME.search(name) and len(value) >= _LEAST_LENGTH}
    yield from sorted(values, key=len, reverse=True)  # a secret may be a part of another
