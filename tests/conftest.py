"""Every test has a home of its own and no network; tiny models are built once a session and never written to."""

import atexit
import functools
import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path

import hypothesis
import pytest
import typer.main

from evaluation.runners import pool
from tasks.runtime.environment import activate

pytest_plugins = [
    "tests.fixtures.browser",
    "tests.fixtures.compiled",
    "tests.fixtures.installed",
    "tests.fixtures.pipeline",
    "tests.fixtures.program",
    "tests.fixtures.scheduling",
]

# How long an example takes says nothing; and the examples of a test may share its tmp_path, which they overwrite.
hypothesis.settings.register_profile(
    "any speed",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.function_scoped_fixture],
    # In CI the same examples every time; elsewhere new ones, which find new faults.
    derandomize=bool(os.environ.get("CI")),
)
hypothesis.settings.load_profile("any speed")

# Without job control a shell starts background processes deaf to Ctrl-C, and all processes below inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Prefect settles where it keeps results when it is imported, which collecting the tests does: not where the user's are,
# nor where those of an earlier run of the tests would be found.
os.environ["RAMMERGE_HOME"] = tempfile.mkdtemp(prefix="rammerge-tests-")
atexit.register(shutil.rmtree, os.environ["RAMMERGE_HOME"], ignore_errors=True)
activate()

# What is printed does not depend on where the tests are started: rich and typer would follow these.
for name in ("COLUMNS", "LINES", "FORCE_COLOR", "CLICOLOR_FORCE", "TERMINAL_WIDTH", "GITHUB_ACTIONS"):
    os.environ.pop(name, None)

# Read by huggingface_hub, transformers and torch when they are first imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What runs models takes seconds to start. It stays for the next test that needs it.
pool._IDLE_SECONDS = 3600.0

# Tests that call the command line in this process do so a thousand times: it is built from its functions once.
typer.main.get_command = functools.cache(typer.main.get_command)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Spare the garbage collector the million objects that collecting imports, now and in every test."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long, so that no worker is left with it when the others are done."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(autouse=True)
def rammerge_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point RAMMERGE_HOME at an empty directory of the test's own, outside its tmp_path."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("RAMMERGE_HOME", str(home))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return home


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function from a kind (tests.fixtures.models.KINDS) to its bf16 model directory; copy before editing."""
    built: dict[str, Path] = {}

    def build(kind: str = "llama") -> Path:
        from tests.fixtures.models import save_model

        if kind not in built:
            built[kind] = save_model(tmp_path_factory.mktemp("models") / kind, kind)
        return built[kind]

    return build
