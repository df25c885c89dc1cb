"""Contract of verl's shards: what any number of ranks saved, or a single one, is put together bit for bit."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from torch.distributed.tensor import Placement, Replicate, Shard

from rammerge.checkpoints.checkpoint import Checkpoint, open_checkpoint
from rammerge.checkpoints.fetch import fetch
from rammerge.checkpoints.forms import verl
from rammerge.checkpoints.forms.tensors import constant, write_model
from tests.fixtures.sharded import save_dtensors, save_sharded_tensors
from tests.fixtures.states import equal, refused, weights

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize(
    ("mesh", "placements"),
    [
        ({"fsdp": 2}, [Shard(0)]),
        ({"fsdp": 7}, [Shard(0)]),
        ({"fsdp": 2}, [Replicate()]),
        ({"ddp": 2, "fsdp": 2}, [Replicate(), Shard(0)]),
        ({"fsdp": 2, "tp": 2}, [Shard(0), Replicate()]),
    ],
    ids=["two ranks", "uneven", "replicated", "hybrid", "replicated last"],
)
def test_verl_shards(
    agent: Path, tmp_path: Path, base: Checkpoint, mesh: dict[str, int], placements: list[Placement]
) -> None:
    state = weights(agent)
    step = tmp_path / "global_step_7"
    whole = ["model.norm.weight"]
    masters = {name: tensor if name in whole else tensor.float() for name, tensor in state.items()}
    actor = save_dtensors(step / "actor", masters, mesh, placements, whole)
    huggingface = actor / "huggingface"
    huggingface.mkdir()
    shutil.copyfile(agent / "config.json", huggingface / "config.json")
    (huggingface / "tokenizer.json").write_text("{}")

    for source in (actor, step):
        checkpoint = fetch(str(source), base=base)
        assert equal(weights(checkpoint.path), state)
        assert [file.name for file in checkpoint.sidecars] == ["config.json", "tokenizer.json"]


def test_verl_shards_cut_in_two_dimensions(tmp_path: Path) -> None:
    state = {"a": torch.randn(5, 6), "b": torch.randn(4, 3, 2).bfloat16()}
    actor = save_dtensors(tmp_path / "actor", state, {"fsdp": 2, "tp": 3}, [Shard(0), Shard(1)])
    found = {name: tensor.read() for name, tensor in verl.read_ranks(verl.rank_files(actor)).items()}
    assert equal(found, state)


def test_verl_sharded_tensors(agent: Path, tmp_path: Path, base: Checkpoint) -> None:
    state = weights(agent)
    actor = save_sharded_tensors(tmp_path / "actor", state, 3)
    assert equal(weights(fetch(str(actor), base=base).path), state)


def test_verl_masters_are_exported_as_the_base_is_stored(agent: Path, tmp_path: Path, base: Checkpoint) -> None:
    """Without a base the export is bfloat16, as from verl's own merger; for a float32 base nothing is lost."""
    masters = {name: tensor.float() + 1e-5 for name, tensor in weights(agent).items()}
    actor = save_dtensors(tmp_path / "actor", masters, {"fsdp": 2}, [Shard(0)])
    shutil.copyfile(agent / "config.json", actor / "config.json")
    rounded = {name: tensor.bfloat16() for name, tensor in masters.items()}
    assert equal(weights(fetch(str(actor), base=base).path), rounded)
    assert equal(weights(fetch(str(actor)).path), rounded)
    wide = shutil.copytree(agent, tmp_path / "wide")
    (wide / "model.safetensors").unlink()
    write_model(wide, {name: constant(tensor) for name, tensor in masters.items()})
    assert equal(weights(fetch(str(actor), base=open_checkpoint(wide)).path), masters)


def test_an_export_by_verl_itself_is_used_as_it_is(agent: Path, tmp_path: Path) -> None:
    actor = save_dtensors(tmp_path / "actor", {"a": torch.ones(2)}, {"fsdp": 2}, [Shard(0)])
    shutil.copytree(agent, actor / "huggingface")
    assert equal(weights(fetch(str(actor)).path), weights(agent))


def test_damaged_verl_shards_are_refused(agent: Path, tmp_path: Path, base: Checkpoint) -> None:
    whole = save_dtensors(tmp_path / "whole", weights(agent), {"fsdp": 3}, [Shard(0)])

    def damaged(name: str) -> Path:
        return shutil.copytree(whole, tmp_path / name)

    missing = damaged("missing")
    (missing / "model_world_size_3_rank_1.pt").unlink()
    refused(missing, r"lacks the files of 1 ranks \(rank 1 first\)", base=base)
    truncated = damaged("truncated")
    os.truncate(truncated / "model_world_size_3_rank_1.pt", 5000)
    refused(truncated, "rank_1.pt was not unpickled", base=base)
    twice = damaged("twice")
    shutil.copyfile(twice / "model_world_size_3_rank_0.pt", twice / "model_world_size_3_rank_1.pt")
    refused(twice, "do not add up to a tensor", base=base)
    stale = damaged("stale")
    (stale / "model_world_size_1_rank_0.pt").write_bytes(b"")
    assert equal(weights(fetch(str(stale), base=base).path), weights(agent))
    (stale / "fsdp_config.json").unlink()
    refused(stale, r"several world sizes \[1, 3\]", base=base)
    mixed = damaged("mixed")
    torch.save({"other": torch.ones(1)}, mixed / "model_world_size_3_rank_2.pt")
    refused(mixed, "rank_2.pt has other tensors than", base=base)
