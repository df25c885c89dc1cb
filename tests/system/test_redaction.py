"""Contract: no credential is left in a text that people may read, and nothing else is changed."""

import io
import logging
from collections.abc import Iterator

import pytest

from rammerge.errors import InputError, RammergeError
from rammerge.system.redaction import redact, redact_log_records, without_credentials, without_secrets

SECRET = "s3cr3t-of-the-tests"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", f"longer-{SECRET}")
    monkeypatch.setenv("PREFECT_API_KEY", "1")


@pytest.mark.parametrize(
    "text",
    [
        f"http://user:{SECRET}@127.0.0.1:5000/#/experiments",
        f"postgresql+psycopg2://mlflow:{SECRET}@db.local/mlflow?sslmode=require",
        f"postgresql://mlflow:with@{SECRET}@db.local/mlflow",
        f"https://{SECRET}@host/path",
        f"'HTTPS://user:{SECRET}@host'",
        f"https://bucket.s3.local/key?X-Amz-Security-Token={SECRET}&part=1",
        f"https://host/a?sig={SECRET}",
        f"Authorization: Bearer {SECRET}",
        "Authorization: Basic dXNlcjpzM2NyM3Q=",
        f"the hub says that {SECRET} is not valid",
        f"longer-{SECRET}",
    ],
)
def test_credentials_are_hidden(text: str) -> None:
    shown = redact(text)
    assert SECRET not in shown and "dXNlcjpzM2NyM3Q" not in shown
    assert "***" in shown and "longer" not in shown
    assert redact(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:////home/user/.cache/rammerge/mlflow/mlflow.db",
        "org/name@main and a@b.example",
        "http://127.0.0.1:4200/runs/1?tab=logs",
        "models:/zoo@champion",
        "1 of 1 done",
        "",
    ],
)
def test_everything_else_stays(text: str) -> None:
    assert redact(text) == text


def test_a_link_has_no_credentials() -> None:
    assert without_credentials(f"https://user:{SECRET}@host:1/path?a=b@c") == "https://host:1/path?a=b@c"
    assert without_credentials("http://127.0.0.1:4200") == "http://127.0.0.1:4200"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """What a handler writes, with the log records' factory restored afterwards."""
    made, logger, written = logging.getLogRecordFactory(), logging.getLogger("rammerge.tests"), io.StringIO()
    handler = logging.StreamHandler(written)
    logger.addHandler(handler)
    redact_log_records()
    yield written
    logger.removeHandler(handler)
    logging.setLogRecordFactory(made)


def test_log_records_and_their_tracebacks_hide_secrets(stream: io.StringIO) -> None:
    logger = logging.getLogger("rammerge.tests")
    logger.warning("asked %s", f"http://user:{SECRET}@host/")
    try:
        raise OSError(f"no answer from http://user:{SECRET}@host/")
    except OSError:
        logger.exception("failed")
    assert stream.getvalue().startswith("asked http://***@host/\n")
    assert "OSError: no answer from http://***@host/" in stream.getvalue()
    assert SECRET not in stream.getvalue()


def test_a_record_whose_arguments_do_not_fit_is_no_error_and_hides_secrets_too(stream: io.StringIO) -> None:
    logging.getLogger("rammerge.tests").warning("asked %d times", f"http://user:{SECRET}@host/")
    assert stream.getvalue() == "asked %d times ('http://***@host/',)\n"


@pytest.mark.parametrize(("error", "kind"), [(InputError, InputError), (OSError, RammergeError)])
def test_a_failure_keeps_its_kind_and_loses_its_secret(error: type[Exception], kind: type[Exception]) -> None:
    @without_secrets
    def fail() -> None:
        raise error(f"http://user:{SECRET}@host/ is down")

    with pytest.raises(kind, match=r"^http://\*\*\*@host/ is down$") as raised:
        fail()
    assert raised.value.__cause__ is None and raised.value.__suppress_context__


def test_a_failure_without_a_secret_is_passed_on_as_it_is() -> None:
    @without_secrets
    def fail() -> None:
        raise ZeroDivisionError("nothing to hide")

    with pytest.raises(ZeroDivisionError, match="nothing to hide"):
        fail()
