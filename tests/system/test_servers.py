"""Contract: a server that cannot start keeps no other from starting."""

import sys
from pathlib import Path

import pytest

from rammerge.system.locks import locked
from rammerge.system.servers import running


@pytest.mark.parametrize("fault", ["prepare", "command"])
def test_a_start_that_fails_frees_the_lock(fault: str, tmp_path: Path) -> None:
    log = tmp_path / "server.log"

    def prepare() -> None:
        if fault == "prepare":
            raise ZeroDivisionError("no preparation")

    command = [sys.executable if fault == "prepare" else str(tmp_path / "missing")]
    context = running("server", command, url="", health="", log=log, settings={}, prepare=prepare)
    with pytest.raises((ZeroDivisionError, FileNotFoundError)) as failed:
        context.__enter__()
    with locked(log.with_suffix(".lock"), wait=False):
        assert failed.value.__traceback__ is not None  # it holds all that the failed start held
