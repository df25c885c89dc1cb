"""One MLflow database for each module of tests."""

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.evaluation.made import write_model

    return write_model(tmp_path_factory.mktemp("model") / "merged")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One MLflow database for the module, since making one takes seconds; each test uses names of its own."""
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture(autouse=True)
def environment(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAMMERGE_HOME", str(place))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{place / 'mlflow.db'}")
