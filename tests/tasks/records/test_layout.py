"""Contract of a registered version: MLflow loads and serves it from its place, and its description is true.

The description covers its size, the packages that it was tested with, and what it takes and returns. Whoever may read
the directory in which it was registered may read it.
"""

import asyncio
import os
import threading
from importlib.metadata import version
from pathlib import Path
from unittest.mock import patch

import httpx
import pytest
from mlflow.models import Model
from mlflow.pyfunc import load_model, scoring_server

from tasks.records.files import LIST
from tasks.records.layout import expect_records
from tests.fixtures.waiting import wait_until
from tests.tasks.records.made import register


@pytest.fixture
def registered(model: Path, place: Path) -> Path:
    return Path(register("laid", model, "laid", place).path)


def test_what_is_prepared_early_is_there_and_a_failure_is_left_to_the_steps(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[object] = []
    monkeypatch.setattr(threading, "excepthook", failures.append)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'early.db'}")
    expect_records(model)
    wait_until((tmp_path / "early.db").exists, "the database")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nothing://that.is/known")
    expect_records(model)
    wait_until(lambda: "rammerge-mlflow" not in {thread.name for thread in threading.enumerate()}, "the end")
    assert failures == []


def test_the_description_has_the_size_of_all_files(registered: Path) -> None:
    size = Model.load(str(registered / "MLmodel")).model_size_bytes
    described = [path for path in registered.rglob("*") if path.is_file() and path.name not in ("MLmodel", LIST)]
    assert size == sum(path.stat().st_size for path in described)
    assert size > (registered / "model" / "model.safetensors").stat().st_size


def test_no_description_is_loaded_where_the_run_is(model: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That imports pandas, which takes longer than all else that registers."""
    monkeypatch.setattr(Model, "load", None)
    register("laid", model, "laid", place)


def test_requirements_are_pinned_to_what_is_installed(registered: Path) -> None:
    pinned = dict(line.split("==") for line in (registered / "requirements.txt").read_text().split())
    assert {"mlflow", "torch", "transformers", "tokenizers", "safetensors"} <= pinned.keys()
    assert all(version(package).partition("+")[0] == wanted for package, wanted in pinned.items())


def test_it_has_a_signature_and_an_example(registered: Path) -> None:
    description = Model.load(str(registered / "MLmodel"))
    assert description.signature is not None
    assert description.signature.inputs.is_tensor_spec() is False
    assert [str(parameter.name) for parameter in description.signature.params] == ["max_new_tokens"]
    assert isinstance(description.load_input_example(str(registered)), str)


def test_whoever_may_read_the_place_may_read_the_version(model: Path, registered: Path) -> None:
    for file in model.iterdir():
        file.chmod(0o644)  # as a merge writes them; a version's files are links to them
    of_the_place = registered.parent.stat().st_mode & 0o777
    for directory in (registered, *(path for path in registered.rglob("*") if path.is_dir())):
        assert directory.stat().st_mode & 0o777 == of_the_place, directory
    for file in (path for path in registered.rglob("*") if path.is_file()):
        assert file.stat().st_mode & 0o777 == of_the_place & 0o666, file


@pytest.mark.usefixtures("registered")
def test_mlflow_serves_it() -> None:
    """By the application that `mlflow models serve` runs, here without another process, which takes ten seconds."""

    async def served() -> tuple[httpx.Response, httpx.Response]:
        application = httpx.ASGITransport(scoring_server.init(load_model("models:/laid/1")))
        async with httpx.AsyncClient(transport=application, base_url="http://served") as client:
            asked = {"inputs": ["abc"], "params": {"max_new_tokens": 3}}
            return await client.get("/health"), await client.post("/invocations", json=asked)

    with patch.dict(os.environ):  # the application leaves a variable
        health, answer = asyncio.run(served())
    assert health.status_code == 200
    (text,) = answer.json()["predictions"]
    assert isinstance(text, str) and text
