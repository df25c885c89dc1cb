"""Contract of artifacts that MLflow's server keeps: what is to serve is read from there and compared, file by file.

Nothing of it stays on this machine.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rammerge.errors import InputError
from rammerge.system.home import home
from rammerge.system.servers import LOOPBACK, answers, end_with_parent, free_port
from tasks.records import promotion, registry
from tasks.records.connection import client
from tests.fixtures.waiting import wait_until
from tests.tasks.records.made import aliases

NAME = "remote"


@pytest.fixture(scope="module")
def served(place: Path) -> Iterator[str]:
    """The address of an MLflow server that hands artifacts through to a directory."""
    port = free_port()
    options = [
        "--host",
        LOOPBACK,
        "--port",
        str(port),
        "--workers",
        "1",
        "--default-artifact-root",
        "mlflow-artifacts:/",
    ]
    stores = ["--backend-store-uri", f"sqlite:///{place / 'server.db'}", "--artifacts-destination", str(place / "kept")]
    with (place / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *options, *stores],
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=end_with_parent,
        )
        address = f"http://{LOOPBACK}:{port}"
        wait_until(lambda: answers(f"{address}/health") or server.poll() is not None, "the server to answer")
        assert server.poll() is None, (place / "log").read_text()
        yield address
        server.terminate()
        server.wait()


@pytest.fixture(autouse=True)
def tracked(environment: None, served: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001 (comes first)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", served)


@pytest.fixture(scope="module")
def kept(place: Path) -> Path:
    """Where the server keeps the files of all versions."""
    return place / "kept"


def register(number: int, model: Path) -> None:
    mlflow = client()
    found = mlflow.get_experiment_by_name(NAME)
    experiment = found.experiment_id if found else mlflow.create_experiment(NAME)
    run = mlflow.create_run(experiment, run_name="variant").info.run_id
    made = registry.register(NAME, model, digest=f"digest {number}", run_id=run, description="", tags={})
    assert made.version == number and made.path.startswith("mlflow-artifacts:")


def test_an_intact_version_serves(model: Path) -> None:
    for number in (1, 2):
        register(number, model)
        assert promotion.promote(NAME, number).sentence.startswith(f"{NAME} version {number} is champion now")
    assert promotion.rollback(NAME).changed and promotion.rollback(NAME).changed
    assert aliases(NAME) == {"champion": 2, "previous": 1}
    assert not list(home().glob(".model-*"))


@pytest.mark.parametrize("harm", ["two bytes", "deleted", "added"])
def test_harm_at_the_server_is_noticed(harm: str, kept: Path, tmp_path: Path) -> None:
    (first,) = (release for release in registry.releases(NAME) if release.version == 1)
    weights = kept / first.path.removeprefix("mlflow-artifacts:/") / "model" / "model.safetensors"
    whole = shutil.copyfile(weights, tmp_path / "whole")
    if harm == "two bytes":
        content = bytearray(weights.read_bytes())
        content[-2] ^= 1
        content[-1] ^= 1
        weights.write_bytes(content)
        words = "model.safetensors differs"
    elif harm == "deleted":
        weights.unlink()
        words = "model.safetensors is missing"
    else:
        weights.with_name("added.py").touch()
        words = "added.py was added"
    with pytest.raises(InputError, match=words):
        promotion.rollback(NAME)
    with pytest.raises(InputError, match=words):
        promotion.promote(NAME, 1, by_hand=True)
    assert aliases(NAME) == {"champion": 2, "previous": 1}
    assert not list(home().glob(".model-*"))
    weights.with_name("added.py").unlink(missing_ok=True)
    shutil.copyfile(whole, weights)
    assert promotion.rollback(NAME).changed and promotion.rollback(NAME).changed
