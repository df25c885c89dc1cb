"""Contract of adapters inside a trainer's state dict: the agent is the frozen weights with the adapter merged in."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import save_file
from torch.distributed.tensor import Shard

from rammerge.checkpoints.checkpoint import Checkpoint, open_checkpoint
from rammerge.checkpoints.fetch import fetch
from tests.fixtures.models import save_model
from tests.fixtures.sharded import save_dtensors
from tests.fixtures.states import State, equal, pickled, refused, save_distributed, weights

pytestmark = pytest.mark.filterwarnings("ignore")

META = {"r": 4, "lora_alpha": 6, "task_type": "CAUSAL_LM"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_checkpoint(save_model(tmp_path_factory.mktemp("base") / "model", "qwen2"))


@pytest.fixture(scope="module")
def trained(base: Checkpoint) -> Any:
    """Return a PEFT model as a trainer holds it: bfloat16 weights, a float32 adapter, a head that is trained whole."""
    network = transformers.AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.bfloat16)
    options = {"target_modules": ["q_proj", "down_proj"], "modules_to_save": ["lm_head"]}
    model = peft.get_peft_model(network, peft.LoraConfig(r=4, lora_alpha=6, **options))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return model


@pytest.fixture(scope="module")
def live(trained: Any) -> State:
    return {name: tensor.detach().clone() for name, tensor in trained.state_dict().items()}


@pytest.fixture(scope="module")
def expected(trained: Any, live: State) -> State:
    assert any("base_layer" in name for name in live)
    assert any("modules_to_save" in name for name in live)
    merged = trained.merge_and_unload().state_dict()
    return {name: tensor.detach().clone() for name, tensor in merged.items()}


def adapter_alone(live: State) -> State:
    return {name: tensor for name, tensor in live.items() if ".lora_" in name or "modules_to_save" in name}


def as_verl(directory: Path, state: State) -> Path:
    actor = save_dtensors(directory / "actor", state, {"fsdp": 2}, [Shard(0)])
    (actor / "lora_train_meta.json").write_text(json.dumps(META))
    return directory


def as_verl_export(directory: Path, state: State) -> Path:
    actor = save_dtensors(directory / "actor", {"a": torch.ones(2)}, {"fsdp": 2}, [Shard(0)])
    (actor / "lora_train_meta.json").write_text(json.dumps(META))
    (actor / "huggingface").mkdir()
    save_file(state, actor / "huggingface" / "model.safetensors", metadata={"format": "pt"})
    return directory


def as_distributed(directory: Path, state: State) -> Path:
    save_distributed(directory / "pytorch_model_fsdp_0", {"model": state})
    (directory / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **META}))
    return directory


def as_pickle(directory: Path, state: State) -> Path:
    directory.mkdir()
    (directory / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **META}))
    return pickled(directory, {"policy": state, "step": 3})


Save = Callable[[Path, State], Path]


@pytest.mark.parametrize("save", [as_verl, as_verl_export, as_distributed, as_pickle])
@pytest.mark.parametrize("whole", [True, False], ids=["with the frozen weights", "the adapter alone"])
def test_an_adapter_in_a_state_dict_is_merged(
    base: Checkpoint, live: State, expected: State, tmp_path: Path, save: Save, whole: bool
) -> None:
    source = save(tmp_path / "source", live if whole else adapter_alone(live))
    assert equal(weights(fetch(str(source), base=base)), expected)


def test_without_its_alpha_an_adapter_is_refused(base: Checkpoint, live: State, tmp_path: Path) -> None:
    source = as_verl(tmp_path / "source", live)
    (source / "actor" / "lora_train_meta.json").unlink()
    says = r"actor contains a LoRA adapter among its tensors, but no file gives its alpha; put an adapter_config\.json"
    refused(source, says, base=base)


def test_an_adapter_in_a_state_dict_needs_its_base(live: State, tmp_path: Path) -> None:
    source = as_verl(tmp_path / "source", live)
    (source / "actor" / "config.json").write_text("{}")
    refused(source, "actor is an adapter of None; give the base that it belongs to")


def test_an_adapter_that_was_saved_beside_the_shards_is_taken(
    base: Checkpoint, live: State, expected: State, tmp_path: Path
) -> None:
    """Older releases of verl, and SkyRL, write `lora_adapter`."""
    actor = save_dtensors(tmp_path / "global_step_3" / "policy", live, {"fsdp": 2}, [Shard(0)])
    (actor / "lora_adapter").mkdir()
    saved = {name.replace(".default", "").replace(".modules_to_save", ""): t for name, t in adapter_alone(live).items()}
    save_file(saved, actor / "lora_adapter" / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", **META, "target_modules": ["q_proj", "down_proj"]}
    (actor / "lora_adapter" / "adapter_config.json").write_text(json.dumps(settings))
    assert equal(weights(fetch(str(tmp_path / "global_step_3"), base=base)), expected)


def test_several_adapters_in_a_state_dict_are_refused(base: Checkpoint, live: State, tmp_path: Path) -> None:
    other = {name.replace(".default", ".reference"): tensor for name, tensor in adapter_alone(live).items()}
    refused(as_verl(tmp_path / "source", {**live, **other}), r"has several adapters \(default, reference\)", base=base)
