"""Contract: the callback writes a patch for each checkpoint that a trainer saves, and never ends the training.

Real trainers call it in tests/checkpoints/forms/test_trainers.py.
"""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from rammerge.checkpoints.checkpoint import open_checkpoint
from rammerge.checkpoints.patched.container import read_patch
from rammerge.checkpoints.patched.opening import open_patch
from rammerge.errors import InputError
from rammerge.training import PatchCallback
from tests.engine.models import write


def save(callback: PatchCallback, run: Path, step: int, *, first: bool = True) -> None:
    """Tell the callback that the trainer saved the checkpoint of a step."""
    state = SimpleNamespace(is_world_process_zero=first, global_step=step)
    callback.on_save(SimpleNamespace(output_dir=str(run)), state, SimpleNamespace())


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write(tmp_path / "base", {"weight": torch.linspace(-1, 1, 999).bfloat16()}).path


def checkpoint(run: Path, step: int, dtype: torch.dtype = torch.bfloat16) -> Path:
    return write(run / f"checkpoint-{step}", {"weight": torch.linspace(-1, 1 + step * 1e-2, 999).to(dtype)}).path


def test_chains_start_anew(base: Path, tmp_path: Path) -> None:
    """A trainer that was started again, with the patches of its earlier run there, goes on with them."""
    for step in (2, 10, 30):
        checkpoint(tmp_path / "run", step)
        save(PatchCallback(base, chain=2), tmp_path / "run", step)
    parents = [read_patch(tmp_path / "run" / f"patch-{step}").contents.parent for step in (2, 10, 30)]
    assert parents == [None, "patch-2", None]


def test_float32_weights_are_those_of_a_merge(base: Path, tmp_path: Path, rammerge_home: Path) -> None:
    """What the conversion wrote is gone: a run of many steps would fill the disk."""
    checkpoint(tmp_path / "run", 1, torch.float32)
    save(PatchCallback(base, tmp_path / "patches"), tmp_path / "run", 1)
    agent = open_patch(tmp_path / "patches" / "patch-1", open_checkpoint(base))
    assert agent.tensors["weight"].dtype.name == "bfloat16"
    kept = rammerge_home / "store" / "converted"
    assert [path for path in kept.iterdir() if not path.name.startswith(".")] == []


def test_a_failure_is_a_warning(base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "run" / "checkpoint-1").mkdir(parents=True)
    save(PatchCallback(base), tmp_path / "run", 1)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert caplog.messages[0].startswith("no patch of step 1: ")


def test_so_is_a_directory_that_cannot_be_made(base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint(tmp_path / "run", 1)
    (tmp_path / "file").touch()
    save(PatchCallback(base, tmp_path / "file" / "patches"), tmp_path / "run", 1)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_one_process_of_all_writes(base: Path, tmp_path: Path) -> None:
    checkpoint(tmp_path / "run", 1)
    save(PatchCallback(base), tmp_path / "run", 1, first=False)
    assert not (tmp_path / "run" / "patch-1").exists()


def test_a_base_that_is_none_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        PatchCallback(tmp_path / "nothing")
