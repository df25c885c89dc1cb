"""Contract of torch.distributed.checkpoint: the agent's tensors come out, whatever is saved beside them."""

import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.checkpoints.fetch import fetch
from tests.fixtures.states import equal, refused, save_distributed, weights

pytestmark = pytest.mark.filterwarnings("ignore")


def test_distributed_checkpoint(agent: Path, tmp_path: Path, base: Checkpoint) -> None:
    state = weights(agent)
    bare = save_distributed(tmp_path / "bare", dict(state))
    shutil.copyfile(agent / "config.json", bare / "config.json")
    checkpoint = fetch(str(bare))
    assert equal(weights(checkpoint.path), state)
    assert [file.name for file in checkpoint.sidecars] == ["config.json"]

    # As a trainer leaves it: master weights in float32 beside the optimizer's state, no configuration.
    moments = {"state": {name: {"m": tensor, "v": tensor} for name, tensor in state.items()}}
    masters = {f"_orig_mod.{name}": tensor.float() for name, tensor in state.items()}
    trainer = save_distributed(
        tmp_path / "checkpoint-9" / "pytorch_model_fsdp_0", {"model": masters, "optimizer": moments, "step": 3}
    )
    for source in (trainer, trainer.parent):
        checkpoint = fetch(str(source), base=base)
        assert equal(weights(checkpoint.path), state)
        assert checkpoint.config == base.config
    refused(trainer, "no config.json")


def test_flattened_optimizer_state_is_no_model(agent: Path, tmp_path: Path, base: Checkpoint) -> None:
    state = weights(agent)
    moments = {f"state.{name}.{kind}": tensor for name, tensor in state.items() for kind in ("m", "v")}
    trainer = save_distributed(tmp_path / "trainer", {"app": {"model": dict(state)}, "optim": moments})
    assert equal(weights(fetch(str(trainer), base=base).path), state)


def test_damaged_distributed_checkpoints_are_refused(agent: Path, tmp_path: Path, base: Checkpoint) -> None:
    whole = save_distributed(tmp_path / "whole", weights(agent))

    def damaged(name: str) -> Path:
        return shutil.copytree(whole, tmp_path / name)

    truncated = damaged("truncated")
    (data,) = truncated.glob("*.distcp")
    os.truncate(data, 1000)
    refused(truncated, "truncated", base=base)
    missing = damaged("missing")
    next(missing.glob("*.distcp")).unlink()
    refused(missing, "does not exist", base=base)
    other = damaged("other")
    content = next(other.glob("*.distcp"))
    content.write_bytes(b"\0" * content.stat().st_size)
    refused(other, "was not unpickled", base=base)
    lying = damaged("lying")
    metadata = pickle.loads((lying / ".metadata").read_bytes())
    entry = metadata.state_dict_metadata["model.norm.weight"]
    entry.size = entry.chunks[0].sizes = torch.Size([10**13])
    (lying / ".metadata").write_bytes(pickle.dumps(metadata))
    refused(lying, "truncated", base=base)
    (other / ".metadata").write_bytes(pickle.dumps({"a": 1}))
    refused(other, "does not describe", base=base)
