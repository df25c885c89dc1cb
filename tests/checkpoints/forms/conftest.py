"""A tied base and an agent of it, which every form is tried with."""

from collections.abc import Callable
from pathlib import Path

import pytest

from rammerge.checkpoints.checkpoint import Checkpoint, open_checkpoint
from tests.fixtures.models import save_agent


@pytest.fixture
def agent(tiny_model: Callable[[str], Path], tmp_path: Path) -> Path:
    """Return a new agent of `base`, which may be written to."""
    return save_agent(tiny_model("tied"), tmp_path / "agent")


@pytest.fixture
def base(tiny_model: Callable[[str], Path]) -> Checkpoint:
    """Return a tied bfloat16 model."""
    return open_checkpoint(tiny_model("tied"))
