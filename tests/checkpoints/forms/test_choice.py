"""Contract: of several sets of weights in a directory the agent is the one that fits the base and is not the base.

The choice is reported. Two sets that fit and differ are refused. No set is chosen for its size or its name alone.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.distributed.tensor import Shard

from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.checkpoints.family import Family
from rammerge.checkpoints.fetch import fetch
from rammerge.checkpoints.stored import is_leftover
from rammerge.errors import InputError
from tests.fixtures.adapters import train_adapter
from tests.fixtures.models import save_agent, save_model
from tests.fixtures.sharded import save_dtensors
from tests.fixtures.states import State, equal, refused, save_distributed, weights

pytestmark = pytest.mark.filterwarnings("ignore")

# What trainers leave beside a model: transformers, accelerate, TRL, LLaMA-Factory, verl, torchtune, Lightning.
LEFTOVERS = [
    "optimizer.safetensors", "optimizer.pt", "optimizer.bin", "optimizer_0.bin", "scheduler.pt", "scheduler.bin",
    "scaler.pt", "rng_state.pth", "rng_state_0.pth", "random_states_0.pkl", "training_args.bin",
    "value_head.safetensors",
    "value_head.bin", "v_head.safetensors", "sampler.bin", "dl_state_dict.bin", "trainer_state.pt", "recipe_state.pt",
    "lr_scheduler.pt", "optim_world_size_2_rank_0.pt", "extra_state_world_size_2_rank_0.pt", "custom_checkpoint_0.pkl",
    "grad_scaler.pt", "data.pt",
]  # fmt: skip


def put(file: Path, state: dict[str, Any]) -> None:
    """Write `state` as the ending of `file` says."""
    if file.suffix == ".safetensors":
        save_file(state, file, metadata={"format": "pt"})
    else:
        torch.save(state, file)


def tensors(source: Path, base: Checkpoint) -> State:
    agent = fetch(str(source), base=base)
    Family.open(base, {"agent": agent})
    return weights(agent)


@pytest.mark.parametrize("name", LEFTOVERS)
def test_state_of_a_trainer_is_no_model(agent: Path, base: Checkpoint, name: str) -> None:
    state = weights(agent)
    put(agent / name, {f"{key}.{kind}": tensor.float() for key, tensor in state.items() for kind in ("m", "v")})
    found = fetch(str(agent), base=base)
    assert equal(weights(found), state)
    assert equal(weights(fetch(str(agent))), state)
    assert all(not file.name.endswith((".pt", ".pth", ".bin", ".pkl")) for file in found.sidecars)
    assert is_leftover(name) or name in ("data.pt", "recipe_state.pt")


@pytest.mark.parametrize("name", ["policy.safetensors", "weights.safetensors", "agent.pt", "model_final.pth"])
@pytest.mark.parametrize("other", ["state.safetensors", "adam.pt", "optimizer.safetensors"])
def test_the_file_that_fits_is_taken_whatever_it_is_called(
    agent: Path, base: Checkpoint, name: str, other: str
) -> None:
    state = weights(agent)
    (agent / "model.safetensors").unlink()
    put(agent / name, state)
    put(agent / other, {f"state.{number}.exp_avg": torch.ones(4000) for number in range(len(state) * 2)})
    found = fetch(str(agent), base=base)
    assert equal(weights(found), state)
    if not is_leftover(other):
        assert found.notes[0] == f"its weights are {agent / name}; {agent / other} beside them do not fit the base"


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model-old.safetensors", "consolidated.safetensors"])
def test_two_that_fit_and_differ_are_refused(agent: Path, base: Checkpoint, name: str) -> None:
    state = weights(agent)
    put(agent / name, {key: tensor.clone() for key, tensor in state.items()})
    assert equal(tensors(agent, base), state)
    assert fetch(str(agent), base=base).notes == (f"its weights are {agent / 'model.safetensors'}",)

    put(agent / name, {key: tensor + 1 for key, tensor in state.items()})
    refused(
        agent, f"contains two different models that fit the base: .*model.safetensors and .*{name}; leave", base=base
    )


def test_an_index_beside_a_whole_file(agent: Path, base: Checkpoint) -> None:
    """A second save with another shard size leaves both; transformers loads the whole file."""
    state = weights(agent)
    shards = [dict(sorted(state.items())[:9]), dict(sorted(state.items())[9:])]
    names = [f"model-{number:05}-of-00002.safetensors" for number in (1, 2)]
    for name, shard in zip(names, shards, strict=True):
        save_file({key: tensor + 1 for key, tensor in shard.items()}, agent / name)
    index = {key: name for name, shard in zip(names, shards, strict=True) for key in shard}
    (agent / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    refused(agent, "contains two different models that fit the base", base=base)
    (agent / "model.safetensors").unlink()
    sharded = fetch(str(agent), base=base)
    assert sharded.path == agent
    assert len(sharded.weight_files) == 2
    (agent / "model.safetensors.index.json").unlink()
    assert len(fetch(str(agent), base=base).weight_files) == 2  # the names say that no shard is missing
    (agent / names[1]).unlink()
    refused(agent, "has 1 of the 2 shards that model-00001-of-00002.safetensors is one of", base=base)


def test_the_weights_of_the_base_beside_the_agent(agent: Path, base: Checkpoint) -> None:
    state = weights(agent)
    shutil.copyfile(base.path / "model.safetensors", agent / "model.safetensors")
    put(agent / "policy.safetensors", state)
    found = fetch(str(agent), base=base)
    assert equal(weights(found), state)
    assert "model.safetensors beside them has the base's weights" in found.notes[0]


def test_an_adapter_beside_the_model(tmp_path: Path) -> None:
    """The whole model in an adapter's directory may be the base, the merged model, or another agent."""
    wide = fetch(str(save_model(tmp_path / "wide", "tied", dtype=torch.float32)))
    adapter = train_adapter(wide.path, tmp_path / "adapter", target_modules=["q_proj"]).path
    merged = weights(fetch(str(adapter), base=wide))
    shutil.copyfile(wide.path / "model.safetensors", adapter / "model.safetensors")
    found = fetch(str(adapter), base=wide)
    assert equal(weights(found), merged)
    assert "model.safetensors beside them has the base's weights" in found.notes[0]
    save_file(merged, adapter / "model.safetensors", metadata={"format": "pt"})
    assert equal(weights(fetch(str(adapter), base=wide)), merged)
    save_file({key: t + 1 for key, t in merged.items()}, adapter / "model.safetensors", metadata={"format": "pt"})
    refused(adapter, "contains two different models that fit the base", base=wide)


def test_a_value_head_beside_an_adapter(tmp_path: Path) -> None:
    """PPO with LoRA in LLaMA-Factory."""
    base = fetch(str(save_model(tmp_path / "base", "llama", dtype=torch.float32)))
    adapter = train_adapter(base.path, tmp_path / "adapter", target_modules=["q_proj"]).path
    alone = weights(fetch(str(adapter), base=base))
    put(
        adapter / "value_head.safetensors",
        {"v_head.summary.weight": torch.ones(1, 16), "v_head.summary.bias": torch.ones(1)},
    )
    assert equal(weights(fetch(str(adapter), base=base)), alone)


def test_a_choice_is_remembered(agent: Path, base: Checkpoint) -> None:
    put(agent / "pytorch_model.bin", weights(agent))
    said: list[str] = []
    first = fetch(str(agent), base=base, progress=said.append)
    assert any(line.startswith("comparing ") for line in said)
    said.clear()
    assert fetch(str(agent), base=base, progress=said.append) == first
    assert not any(line.startswith("comparing ") for line in said)


# --- several models in one state dict ---


def renamed(state: State, prefix: str) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


Save = Callable[[Path, dict[str, Any]], Path]


def in_pickle(directory: Path, content: dict[str, Any]) -> Path:
    directory.mkdir()
    torch.save(content, directory / "pytorch_model.bin")
    return directory


def flat(directory: Path, content: dict[str, Any]) -> Path:
    directory.mkdir()
    save_file(
        {f"{key}.{name}": t for key, part in content.items() for name, t in part.items()}, directory / "a.safetensors"
    )
    return directory


@pytest.mark.parametrize("save", [in_pickle, flat, save_distributed])
def test_the_model_of_a_state_dict_is_the_one_that_fits(
    agent: Path, base: Checkpoint, tmp_path: Path, save: Save
) -> None:
    state = weights(agent)
    moments = {f"{name}.{kind}": torch.ones(9000) for name in state for kind in ("exp_avg", "exp_avg_sq")}
    source = save(
        tmp_path / "one", {"policy": dict(state), "optim": moments, "critic": {"v_head.weight": torch.ones(2)}}
    )
    found = fetch(str(source), base=base)
    assert equal({name: weights(found)[name] for name in base.tensors}, state)
    assert "its weights were found under the key 'policy'" in found.notes[0]

    both = {"policy": dict(state), "reference": weights(base)}
    refused(save(tmp_path / "two", both), "contains different models under the key 'policy' and under", base=base)


@pytest.mark.parametrize(
    "prefix",
    ["_orig_mod.", "module.", "module._orig_mod.", "pretrained_model.", "base_model.model.", "actor.", "policy.model.",
     "_forward_module.", "model.", "student."],
)  # fmt: skip
@pytest.mark.parametrize("form", ["safetensors", "pickle", "verl", "distributed"])
def test_prefixes_of_trainers_are_taken_off(
    agent: Path, base: Checkpoint, tmp_path: Path, prefix: str, form: str
) -> None:
    state = weights(agent)
    named = renamed(state, prefix)
    source = tmp_path / "source"
    if form == "verl":
        save_dtensors(source, named, {"fsdp": 2}, [Shard(0)])
    elif form == "distributed":
        save_distributed(source, dict(named))
    else:
        source = shutil.copytree(base.path, source)
        (source / "model.safetensors").unlink()
        put(source / ("model.safetensors" if form == "safetensors" else "pytorch_model.bin"), named)
    assert equal(tensors(source, base), state)


@pytest.mark.parametrize("wrapper", ["_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module."])
def test_wrappers_within_names_are_taken_off(agent: Path, base: Checkpoint, wrapper: str) -> None:
    state = weights(agent)
    named = {name.replace("self_attn.", f"{wrapper}self_attn."): tensor for name, tensor in state.items()}
    put(agent / "model.safetensors", named)
    assert equal(tensors(agent, base), state)


def test_without_a_base_only_what_is_clear_is_taken(agent: Path) -> None:
    state = weights(agent)
    (agent / "model.safetensors").rename(agent / "policy.safetensors")
    assert equal(load_file(fetch(str(agent)).weight_files[0]), state)
    put(agent / "other.safetensors", state)
    with pytest.raises(
        InputError, match=r"contains several files that may be the model: .*other.*policy.*; leave only that"
    ):
        fetch(str(agent))


def test_weights_that_fit_nothing_are_named_with_the_way_out(base: Checkpoint, tmp_path: Path) -> None:
    strange = save_distributed(
        tmp_path / "strange", {"model": {"decoder.layers.0.linear_qkv.weight": torch.ones(4, 4)}}
    )
    refused(
        strange,
        r"does not have the base's tensors: .* is not there and 'model.decoder.*; load it in the trainer",
        base=base,
    )
    ranks = save_dtensors(tmp_path / "actor", {"a": torch.ones(4)}, {"fsdp": 2}, [Shard(0)])
    refused(
        ranks, r"is not there and 'a' is; export it with `python -m verl.model_merger merge --backend fsdp", base=base
    )
    other = save_agent(save_model(tmp_path / "llama", "llama"), tmp_path / "other")
    (other / "config.json").unlink()
    refused(other, r"does not have the base's tensors: model.layers.0.self_attn.k_proj.bias is not there", base=base)
