"""The tests of this directory need a GPU, and nothing of the pipeline.

`pytest -o addopts=-q --confcutdir tests/cuda tests/cuda` runs them where only the library's dependencies are installed.
"""

import pytest
import torch


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep compiled code and converted models away from the user's."""
    monkeypatch.setenv("RAMMERGE_HOME", str(tmp_path_factory.mktemp("home")))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("cuda"):
            item.add_marker(pytest.mark.skip(reason="torch finds no CUDA device"))
