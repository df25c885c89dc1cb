"""Contract: a fault that strikes while a run goes on is told in one sentence, wherever in the program it is noticed."""

import errno
import os
import sys
from pathlib import Path
from unittest.mock import patch

import httpx
import pytest

from evaluation.runners.worker import Asked
from flows.cli import program
from flows.servers.api import explained

API = "http://127.0.0.1:4200/api"


def fill() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/models/scores.json")


def test_a_disk_that_is_full_for_a_model_s_process_is_told_as_for_any_other() -> None:
    answer = Asked().answer({"do": "call", "function": f"{__name__}:fill", "arguments": {}})
    assert answer["error"] == "RammergeError"
    assert answer["message"].startswith("no space left on the disk of /models/scores.json; make room and run again")


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


refused = httpx.ConnectError("refused", request=httpx.Request("POST", f"{API}/logs/"))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (refused, "does not answer any more"),
        (caused(RuntimeError("Failed to reach API"), refused), "does not answer any more"),
        (
            httpx.HTTPStatusError("500", request=httpx.Request("POST", f"{API}/x"), response=httpx.Response(500)),
            "failed (500)",
        ),
    ],
)
def test_a_prefect_that_goes_away_is_named(
    error: Exception, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    def run(*_: object) -> None:
        raise error

    recipe = tmp_path / "recipe.yaml"
    recipe.touch()
    ran = patch("flows.cli.running.run", run), patch.object(sys, "argv", ["rammerge", "run", str(recipe)])
    with temporary_settings({PREFECT_API_URL: API}), ran[0], ran[1], pytest.raises(SystemExit) as exit_:
        program.main()
    said = capsys.readouterr().err
    assert exit_.value.code == 1
    assert said == f"error: Prefect at {API} {words}; see its log, and run again: what was finished is kept\n"


def test_no_other_server_is_taken_for_prefect() -> None:
    elsewhere = httpx.ConnectError("refused", request=httpx.Request("GET", "https://example.org/model"))
    assert explained(elsewhere) is None
    assert explained(httpx.ConnectError("refused")) is None
    assert explained(ValueError("Prefect")) is None
