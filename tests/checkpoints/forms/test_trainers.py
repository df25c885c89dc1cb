"""Contract: what real trainers write is read as they left it, from its own directory and from those above."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

from rammerge.checkpoints.checkpoint import Checkpoint, open_checkpoint
from rammerge.checkpoints.digest import digest_checkpoint
from rammerge.checkpoints.family import Family
from rammerge.checkpoints.fetch import fetch
from rammerge.checkpoints.patched.container import read_patch
from tests.fixtures.states import State, equal, weights
from tests.fixtures.trainers import write_all


@pytest.fixture(scope="module")
def base(tiny_model: Callable[[str], Path]) -> Checkpoint:
    return open_checkpoint(tiny_model("tied"))


@pytest.fixture(scope="module")
def written(base: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_all(base.path, tmp_path_factory.mktemp("trainers"))


def rounded(state: State) -> State:
    return {name: tensor.bfloat16() for name, tensor in state.items()}


def opened(source: Path, base: Checkpoint) -> State:
    """Return the tensors that are merged when `source` is an agent of `base`."""
    agent = fetch(str(source), base=base)
    view = Family.open(base, {"agent": agent}).members["agent"]
    assert view.tensors.keys() == base.tensors.keys()
    found = weights(agent)
    return {name: found[name] for name in base.tensors}


SOURCES = {
    "verl on one GPU": ["verl/global_step_3/actor", "verl/global_step_3", "verl"],
    "accelerate, FSDP1, sharded": ["accelerate1-SHARDED_STATE_DICT/checkpoint-3/pytorch_model_fsdp_0",
                                   "accelerate1-SHARDED_STATE_DICT/checkpoint-3", "accelerate1-SHARDED_STATE_DICT"],
    "accelerate, FSDP2, sharded": ["accelerate2-SHARDED_STATE_DICT/checkpoint-3", "accelerate2-SHARDED_STATE_DICT"],
    "accelerate, FSDP1, full": ["accelerate1-FULL_STATE_DICT/checkpoint-3", "accelerate1-FULL_STATE_DICT"],
    "accelerate, FSDP2, full": ["accelerate2-FULL_STATE_DICT/checkpoint-3", "accelerate2-FULL_STATE_DICT"],
    "torch's Hugging Face writer": ["hf"],
    "save_pretrained": ["expected"],
}  # fmt: skip


@pytest.mark.parametrize("trainer", SOURCES)
def test_float32_weights_of_a_tied_model(written: Path, base: Checkpoint, trainer: str) -> None:
    """Trainers keep float32 weights, and the head beside the embedding; all forms of them give the same agent."""
    expected = rounded(load_file(written / "expected" / "model.safetensors"))
    for source in SOURCES[trainer]:
        assert equal(opened(written / source, base), expected), source


def test_the_newest_step_of_trl(written: Path, base: Checkpoint) -> None:
    newest = written / "trl" / "checkpoint-2"
    agent = fetch(str(written / "trl"), base=base)
    assert agent.notes[0] == "its weights are those in checkpoint-2, the newest of 2 steps"
    expected = {n: t.bfloat16() for n, t in load_file(newest / "model.safetensors").items()}
    assert equal(opened(written / "trl", base), expected)
    assert equal(opened(newest, base), expected)
    assert not equal(opened(newest.parent / "checkpoint-1", base), expected)


@pytest.mark.filterwarnings("ignore")
def test_the_newest_adapter_of_trl(written: Path, base: Checkpoint, tmp_path: Path) -> None:
    import peft

    newest = written / "trl-lora" / "checkpoint-2"
    network = transformers.AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.bfloat16)
    peft.PeftModel.from_pretrained(network, newest).merge_and_unload().save_pretrained(tmp_path / "merged")
    expected = load_file(tmp_path / "merged" / "model.safetensors")
    for source in (newest, newest.parent):
        assert equal(opened(source, base), expected)


@pytest.mark.parametrize("run", ["trl", "trl-lora"])
def test_patches_of_each_step(written: Path, base: Checkpoint, run: str) -> None:
    """A callback wrote them: what merges read of the checkpoint, in a chain."""
    for step in (1, 2):
        patch = fetch(str(written / run / f"patch-{step}"), base=base)
        checkpoint = fetch(str(written / run / f"checkpoint-{step}"), base=base)
        assert digest_checkpoint(patch) == digest_checkpoint(checkpoint)
    assert [read_patch(written / run / f"patch-{step}").contents.parent for step in (1, 2)] == [None, "patch-1"]


def test_a_directory_beside_the_steps_may_hold_the_model(written: Path, base: Checkpoint, tmp_path: Path) -> None:
    """A trainer's last save goes to the directory of the steps itself."""
    run = shutil.copytree(written / "trl", tmp_path / "run")
    for file in (written / "expected").iterdir():
        shutil.copyfile(file, run / file.name)
    expected = rounded(load_file(written / "expected" / "model.safetensors"))
    assert equal(opened(run, base), expected)
