"""Contract: conversion turns what trainers leave into safetensors with the same tensors, once per content.

A pickle is never executed, whatever it holds.
"""

import json
import os
import pickle
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import Placement, Replicate, Shard

from rammerge import store
from rammerge.checkpoints.checkpoint import Checkpoint, open_checkpoint
from rammerge.checkpoints.fetch import fetch
from rammerge.checkpoints.forms import conversion, verl
from rammerge.checkpoints.forms.parts import Part, assemble, fault
from rammerge.checkpoints.forms.pickled import load_metadata
from rammerge.checkpoints.forms.tensors import LazyTensor, constant, write_model
from rammerge.errors import InputError, RammergeError
from tests.fixtures.models import save_agent
from tests.fixtures.sharded import save_dtensors, save_sharded_tensors

TinyModel = Callable[[str], Path]
State = dict[str, torch.Tensor]

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def agent(tiny_model: TinyModel, tmp_path: Path) -> Path:
    return save_agent(tiny_model("tied"), tmp_path / "agent")


@pytest.fixture
def base(tiny_model: TinyModel) -> Checkpoint:
    return open_checkpoint(tiny_model("tied"))


def weights(model: Path) -> State:
    found: State = load_file(model / "model.safetensors")
    return found


def equal(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one
    )


def pickled(agent: Path, state: Any) -> Path:
    torch.save(state, agent / "pytorch_model.bin")
    (agent / "model.safetensors").unlink(missing_ok=True)
    return agent


def refused(source: Path, says: str, **options: Any) -> None:
    with pytest.raises(InputError, match=says) as refusal:
        fetch(str(source), **options)
    assert "\n" not in str(refusal.value)


# --- pytorch_model.bin ---


def test_pickled_weights(agent: Path, rammerge_home: Path) -> None:
    state = weights(agent)
    (agent / "tokenizer.json").write_text("{}")
    pickled(agent, {**state, "lm_head.weight": state["model.embed_tokens.weight"]})
    said: list[str] = []

    checkpoint = fetch(str(agent), progress=said.append)

    assert checkpoint.source == str(agent)
    assert checkpoint.path.is_relative_to(rammerge_home)
    assert checkpoint.tied == {"lm_head.weight": "model.embed_tokens.weight"}
    assert equal({name: weights(checkpoint.path)[name] for name in checkpoint.tensors}, state)
    assert {file.name for file in checkpoint.sidecars} == {"config.json", "generation_config.json", "tokenizer.json"}
    record = json.loads((checkpoint.path / "conversion.json").read_text())
    assert record["source"] == str(agent)
    assert list(record["files"]) == [str(agent / "pytorch_model.bin")]
    assert said == [f"converting {agent} (pickled weights)"]


def test_a_conversion_is_kept_until_its_input_changes(agent: Path, tmp_path: Path) -> None:
    state = weights(agent)
    pickled(agent, state)
    first = fetch(str(agent))
    elsewhere = shutil.copytree(agent, tmp_path / "elsewhere")
    assert fetch(str(elsewhere), progress=lambda line: pytest.fail(line)).path == first.path
    pickled(agent, {name: tensor + 1 for name, tensor in state.items()})
    assert fetch(str(agent)).path != first.path
    (first.path / "model.safetensors").write_bytes(b"damaged")
    assert equal(weights(fetch(str(elsewhere)).path), state)


def test_what_was_converted_before_is_found_without_torch(agent: Path) -> None:
    pickled(agent, weights(agent))
    path = fetch(str(agent)).path
    code = (
        "import sys; from rammerge.checkpoints.fetch import fetch\n"
        "print(fetch(sys.argv[1]).path, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(agent)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(path), "False"]


def test_a_conversion_for_which_there_is_no_room(agent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = weights(agent)
    pickled(agent, state)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 100))
        size = sum(tensor.nbytes for tensor in state.values())
        refused(agent, f"the conversion of .* needs {size / 1e3:,.1f} kB and .* has 100 bytes free")

    def full(directory: Path, *_: object) -> None:
        (directory / "model.safetensors").write_bytes(b"begun")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(conversion, "write_model", full)
        with pytest.raises(RammergeError, match=r"No space left on device.*make room"):
            fetch(str(agent))
    assert equal(weights(fetch(str(agent)).path), state)


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


# --- torch.distributed.checkpoint ---


def save_distributed(directory: Path, content: Any) -> Path:
    save(content, checkpoint_id=directory)
    return directory


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


# --- verl ---


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


# --- parts and files ---


def cuts(size: int) -> Iterator[tuple[int, int]]:
    yield from ((begin, min(2, size - begin)) for begin in range(0, size, 2))


def test_parts_must_fill_the_tensor_exactly() -> None:
    whole = torch.arange(35.0).reshape(5, 7)

    def part(row: int, column: int, height: int, width: int) -> Part:
        return Part((row, column), (height, width), lambda: whole[row : row + height, column : column + width])

    chunks = [part(r, c, rows, columns) for r, rows in cuts(5) for c, columns in cuts(7)]
    assert fault((5, 7), chunks) is None
    assert torch.equal(assemble(torch.float32, (5, 7), chunks), whole)
    assert fault((5, 7), chunks[1:]) == "its parts do not fill it"
    assert fault((5, 7), [*chunks[1:], Part((2, 2), (2, 2), chunks[0].read)]) == "two of its parts overlap"
    assert fault((5, 7), [Part((0, 0), (5, 8), chunks[0].read)]) == "a part is outside of it"
    assert fault((5, 7), [Part((-1, 0), (5, 7), chunks[0].read)]) == "a part is outside of it"
    assert fault((5, 7), [Part((0,), (35,), chunks[0].read)]) == "a part has a different number of dimensions"
    assert fault((), [Part((), (), lambda: torch.tensor(1.0))]) is None
    assert fault((), [Part((), (), chunks[0].read)] * 2) == "its parts do not fill it"


@pytest.mark.parametrize("shard_bytes", [1, 100, 1000, 10**9])
def test_written_shards_are_read_back(tmp_path: Path, shard_bytes: int) -> None:
    state = {
        "scalar": torch.tensor(1.5),
        "empty": torch.zeros(0, 3),
        "half": torch.randn(5).bfloat16(),
        "wide": torch.randn(3, 7, 2, dtype=torch.float64).transpose(0, 1),
        "ids": torch.arange(9),
        "mask": torch.tensor([True, False, True]),
    }
    write_model(tmp_path, {name: constant(tensor) for name, tensor in state.items()}, shard_bytes=shard_bytes)
    (tmp_path / "config.json").write_text("{}")
    checkpoint = open_checkpoint(tmp_path)
    read: State = {}
    for file in checkpoint.weight_files:
        read |= load_file(file)
    assert equal(read, state)
    assert len(checkpoint.weight_files) == 1 or shard_bytes < 1000


def test_writing_holds_one_tensor_at_a_time(tmp_path: Path) -> None:
    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    most = 0

    def read() -> torch.Tensor:
        nonlocal most
        tensor = torch.ones(1000)
        alive.add(tensor)
        most = max(most, len(alive))
        return tensor

    write_model(tmp_path, {f"t{number}": LazyTensor(torch.float32, (1000,), read) for number in range(9)})
    assert most == 1


def test_a_store_entry_is_what_was_written(agent: Path) -> None:
    state = weights(agent)
    path = fetch(str(pickled(agent, state))).path
    assert store.find("converted", path.name) is not None
