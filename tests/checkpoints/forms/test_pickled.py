"""Contract of pickles: their tensors are read, and nothing that they name is ever run, whatever they hold."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.checkpoints.fetch import fetch
from rammerge.checkpoints.forms.pickled import load_metadata
from rammerge.errors import InputError
from tests.fixtures.states import equal, pickled, refused, weights


def test_sharded_pickled_weights(agent: Path) -> None:
    state = weights(agent)
    names = sorted(state)
    shards = {"one.bin": names[:5], "two.bin": names[5:]}
    for shard, part in shards.items():
        torch.save({name: state[name] for name in part}, agent / shard)
    index = agent / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {name: shard for shard, part in shards.items() for name in part}}))
    (agent / "model.safetensors").unlink()
    assert equal(weights(fetch(str(agent)).path), state)

    torch.save({name: state[name] for name in names[4:]}, agent / "two.bin")
    refused(agent, "stores .* a second time; remove the stale shard")
    for wrong in ("../one.bin", "/etc/passwd.bin", "missing.bin", "config.json", 3):
        index.write_text(json.dumps({"weight_map": {"a": wrong}}))
        refused(agent, "names the shard")


class Bomb:
    """Touches a file when it is unpickled by a careless reader."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.target}",)


def test_pickles_are_never_executed(agent: Path, tmp_path: Path, base: Checkpoint) -> None:
    mark = tmp_path / "executed"
    pickle.loads(pickle.dumps(Bomb(mark)))
    assert mark.exists()  # the bomb works
    mark.unlink()
    state: dict[str, Any] = {**weights(agent), "bomb": Bomb(mark)}

    refused(pickled(agent, state), "pytorch_model.bin was not unpickled")
    torch.save(state, agent / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    refused(agent, "pytorch_model.bin was not unpickled")
    (agent / "pytorch_model.bin").unlink()
    torch.save(state, agent / "model_world_size_1_rank_0.pt")
    refused(agent, r"was not unpickled, because it holds a pickled 'posix.system'")
    (agent / "model_world_size_1_rank_0.pt").unlink()
    (agent / ".metadata").write_bytes(pickle.dumps(Bomb(mark)))
    refused(agent, r"was not unpickled, because it holds a pickled 'posix.system'")
    (agent / ".metadata").unlink()
    (agent / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 1, "lora_alpha": 1}')
    torch.save(state, agent / "adapter_model.bin")
    refused(agent, "adapter_model.bin was not unpickled", base=base)
    assert not mark.exists()


@pytest.mark.parametrize(
    "opcodes",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cbuiltins\ngetattr\n(cos\nsystem\nS'x'\ntR.",
        b"cbuiltins\ngetattr\n(ctorch\nhub\nS'load'\ntR(S'x'\ntR(S'y'\ntR.",
        b"ctorch.hub\nload\n(S'x'\ntR.",
        b"ctorch\nload\n(S'/etc/passwd'\ntR.",
        b"\x80\x02ctorch.serialization\nload\n)\x81}b.",
    ],
)
def test_what_torch_could_run_is_recorded_only(tmp_path: Path, opcodes: bytes) -> None:
    (tmp_path / ".metadata").write_bytes(opcodes)
    (tmp_path / "config.json").write_text("{}")
    refused(tmp_path, "metadata")


@given(content=st.binary(max_size=80))
@settings(max_examples=200)
def test_any_pickle_is_refused_or_inert(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "metadata"
    file.write_bytes(content)
    try:
        load_metadata(file)
    except InputError as refusal:
        assert "\n" not in str(refusal)


@pytest.mark.parametrize(
    "state",
    [
        [1],
        {"a": 1},
        {},
        {1: torch.ones(1)},
        {"a": torch.ones(2).to_sparse()},
        {"a": torch.ones(1).expand(10**12)},
        "text",
        torch.ones(2),
    ],
    ids=str,
)
def test_pickles_of_something_else_are_refused(agent: Path, state: Any) -> None:
    refused(pickled(agent, state), "pytorch_model.bin")


def test_damaged_pickles_are_refused(agent: Path) -> None:
    file = pickled(agent, weights(agent)) / "pytorch_model.bin"
    content = file.read_bytes()
    for damaged in (b"", b"PK\x03\x04", content[: len(content) // 2], b"\0" * 100, content[:-30]):
        file.write_bytes(damaged)
        refused(agent, "pytorch_model.bin")
    file.unlink()
    os.mkfifo(file)
    refused(agent, "fifo")


def test_dtypes_that_safetensors_lacks_are_refused(agent: Path) -> None:
    refused(pickled(agent, {"a": torch.ones(1, dtype=torch.complex128)}), "'a' as torch.complex128")


def test_wrapped_state_dicts(agent: Path) -> None:
    state = weights(agent)
    assert equal(weights(fetch(str(pickled(agent, {"state_dict": state}))).path), state)
