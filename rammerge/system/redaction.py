"""Keep secrets out of what people may read: terminals, logs, records and process lists."""

import logging
import os
import re
from collections.abc import Callable, Iterator
from functools import wraps
from typing import ParamSpec, TypeVar
from urllib.parse import quote, unquote

from rammerge.errors import InputError, RammergeError

HIDDEN = "***"

# Everything between `scheme://` and the last @ before the path: a name, a password, or a token.
_USERINFO = re.compile(r"(?<=://)[^/\s'\"]+@")
_PARAMETER = re.compile(r"([?&](?:\w*token|password|secret|api_?key|sig(?:nature)?)=)[^&\s'\"]+", re.IGNORECASE)
# As database drivers take it (password=...), and as JSON or Python's repr show it.
_WORD = re.compile(
    r"(?<![\w-])((?:password|passwd|pwd|secret|api_?key)(?:=|['\"]\s*:\s*['\"]))[^&\s'\"]+", re.IGNORECASE
)
_HEADER = re.compile(r"\b((?:Bearer|Basic) )[A-Za-z0-9._~+/=-]{8,}")
# How tokens begin: of Hugging Face, AWS, OpenAI, GitHub, GitLab, Slack and Databricks; and JSON web tokens.
_TOKEN = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|(?:AKIA|ASIA)[A-Z0-9]{16}|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{30,}"
    r"|github_pat_\w{20,}|glpat-[\w-]{20,}|xox[abprs]-[\w-]{10,}|dapi[0-9a-f]{32}"
    r"|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,})"
)
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")
_SECRET_NAME = re.compile(
    r"(?:^|_)(?:TOKEN|(?:PG)?PASSWORD|PASSWD|PASSPHRASE|SECRET|(?:API)?KEY|AUTH_STRING|CREDENTIALS)(?:_|$)"
    r"|_AUTH$|[A-Z]_PWD$"
)
# Shorter values are switches such as "1" and "true", which stand in many texts by chance.
_LEAST_LENGTH = 6

P = ParamSpec("P")
R = TypeVar("R")


def redact(text: str) -> str:
    """Return `text` with `***` in place of credentials in addresses and headers, and of the environment's secrets.

    A variable holds a secret if its name says so, such as HF_TOKEN or MLFLOW_TRACKING_PASSWORD. So does an address with
    a password in any variable: a driver may tell the password without the address.
    """
    text = _USERINFO.sub(f"{HIDDEN}@", text)
    for pattern in (_PARAMETER, _WORD, _HEADER):
        text = pattern.sub(rf"\1{HIDDEN}", text)
    text = _TOKEN.sub(HIDDEN, text)
    for secret in _environment():
        text = text.replace(secret, HIDDEN)
    return text


def without_credentials(address: str) -> str:
    """Return `address` without a name and a password, for a link that people open."""
    return _USERINFO.sub("", address)


def secret_in(text: str) -> str | None:
    """Return what kind of secret a text holds, as words for a message, or None if it shows none."""
    if any(":" in found for found in _USERINFO.findall(text)):
        return "an address with a password"
    if _TOKEN.search(text):
        return "an access token"
    return "a private key" if _PRIVATE_KEY.search(text) else None


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
        message = _message(record)
        if (shown := redact(message)) != message:
            record.msg, record.args = shown, ()
        if record.exc_info and record.exc_info[0] is not None:
            record.exc_text = redact(self._formatter.formatException(record.exc_info))  # formatters use it as it is
        return record


def _message(record: logging.LogRecord) -> str:
    """Return the message. If the arguments do not fit it, they follow it: a call that logs never raises an error."""
    try:
        return record.getMessage()
    except Exception:  # of whatever the arguments are
        record.msg, record.args = f"{record.msg} {record.args}", ()
        return record.getMessage()


def without_secrets(function: Callable[P, R]) -> Callable[P, R]:
    """Redact what the function raises: a failure's words are shown to everyone who may see the run."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            if all(redact(words) == words for words in _told(error)):
                raise
            kind = InputError if isinstance(error, InputError) else RammergeError
            raise kind(redact(str(error))) from None

    return call


def _told(error: BaseException | None) -> Iterator[str]:
    """Yield the words of an error and of those that led to it: a traceback shows them all."""
    while error is not None:
        yield str(error)
        error = error.__cause__ or error.__context__


def _environment() -> Iterator[str]:
    """Yield the secrets in the environment as they may be written, longest first: one may be a part of another."""
    found = {form for secret in _secrets() for form in (secret, unquote(secret), quote(secret, safe=""))}
    yield from sorted((secret for secret in found if len(secret) >= _LEAST_LENGTH), key=len, reverse=True)


def _secrets() -> Iterator[str]:
    for name, value in os.environ.items():
        if _SECRET_NAME.search(name):
            yield value
            if name.endswith("AUTH_STRING"):  # NAME:PASSWORD
                yield value.partition(":")[2]
        for userinfo in _USERINFO.findall(value):
            yield userinfo[:-1].partition(":")[2]
