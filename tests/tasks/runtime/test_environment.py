"""Contract of the environment: importing changes nothing; activating fills in what the user left open, and no more."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch
from urllib.request import getproxies

import pytest

from rammerge.errors import InputError
from tasks.runtime.environment import activate

ROOMS = ("rammerge", "evaluation", "tasks")


def test_importing_any_module_changes_neither_environment_nor_disk(tmp_path: Path) -> None:
    code = (
        "import importlib, os, pkgutil\n"
        "before = dict(os.environ)\n"
        f"for room in {ROOMS}:\n"
        "    for module in pkgutil.walk_packages(importlib.import_module(room).__path__, f'{room}.'):\n"
        "        if not module.name.endswith('__main__'):\n"
        "            importlib.import_module(module.name)\n"
        "print(sorted(name for name in {*before, *os.environ} if before.get(name) != os.environ.get(name)))"
    )
    home, libraries = tmp_path / "home", tmp_path / "libraries"
    home.mkdir()
    # Prefect and matplotlib keep settings of their own, which is theirs to do.
    own = {"PREFECT_HOME": str(libraries / "prefect"), "MPLCONFIGDIR": str(libraries / "matplotlib")}
    foreign = ("PREFECT_", "MLFLOW_", "RAMMERGE_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "HOME": str(home), "RAMMERGE_HOME": str(home / "rammerge"), **own},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "[]", done.stderr
    assert list(home.iterdir()) == []


@pytest.fixture(autouse=True)
def bare() -> Iterator[None]:
    """Remove what activation fills in, and restore the environment afterwards."""
    with patch.dict(os.environ):
        for name in list(os.environ):
            if name.startswith(("PREFECT_", "MLFLOW_")) or name.lower().endswith("_proxy"):
                del os.environ[name]
        yield


def test_databases_lie_below_home(rammerge_home: Path) -> None:
    activate()
    assert os.environ["MLFLOW_TRACKING_URI"] == f"sqlite:///{rammerge_home}/mlflow/mlflow.db"
    assert os.environ["PREFECT_HOME"] == f"{rammerge_home}/prefect"
    assert (rammerge_home / "mlflow").is_dir()


@pytest.mark.parametrize("name", ["PREFECT_API_URL", "MLFLOW_TRACKING_URI", "PREFECT_LOCAL_STORAGE_PATH"])
def test_what_the_user_has_set_stays(name: str) -> None:
    os.environ[name] = "http://theirs"
    activate()
    assert os.environ[name] == "http://theirs"


@pytest.mark.parametrize(
    ("given", "exempt"),
    [
        ({}, None),
        ({"http_proxy": "http://proxy:3128"}, "localhost,127.0.0.1,::1"),
        ({"ALL_PROXY": "socks5://proxy", "NO_PROXY": "intra.net,localhost"}, "intra.net,localhost,127.0.0.1,::1"),
        ({"https_proxy": "http://proxy:3128", "no_proxy": "*"}, "*"),
    ],
)
def test_loopback_is_never_proxied(given: dict[str, str], exempt: str | None) -> None:
    os.environ |= given
    activate()
    assert getproxies().get("no") == exempt


def test_a_home_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    os.environ["RAMMERGE_HOME"] = str(tmp_path / "file")
    with pytest.raises(InputError, match="set RAMMERGE_HOME to a directory that can"):
        activate()
