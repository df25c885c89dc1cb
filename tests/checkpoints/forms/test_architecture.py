"""Contract of names: tensors that a trainer saves as in memory come out as `save_pretrained` stores them, bit for bit.

The tables that say so are those of the installed transformers, each of which is tried.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch.distributed.tensor import Shard
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, get_model_conversion_mapping
from transformers.core_model_loading import revert_weight_conversion
from transformers.models.auto import modeling_auto

from rammerge.checkpoints.checkpoint import Checkpoint, open_checkpoint
from rammerge.checkpoints.family import Family
from rammerge.checkpoints.fetch import fetch
from rammerge.checkpoints.forms.architecture import Architecture
from rammerge.checkpoints.forms.tensors import LazyTensor, constant
from tests.fixtures.architectures import ARCHITECTURES
from tests.fixtures.models import edit_config
from tests.fixtures.sharded import save_dtensors
from tests.fixtures.states import State, save_distributed

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore")]


@dataclass(frozen=True)
class Case:
    """An architecture: its base on disk, an agent as it is in memory, and what save_pretrained makes of the agent."""

    base: Checkpoint
    held: State
    stored: State


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    built: dict[str, Case] = {}

    def build(kind: str) -> Case:
        if kind not in built:
            directory = tmp_path_factory.mktemp(kind)
            torch.manual_seed(0)
            model = ARCHITECTURES[kind]().to(torch.bfloat16)
            model.save_pretrained(directory / "base")
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn_like(parameter) * 0.01)
            model.save_pretrained(directory / "agent")
            stored = load_file(directory / "agent" / "model.safetensors")
            built[kind] = Case(open_checkpoint(directory / "base"), model.state_dict(), stored)
        return built[kind]

    return build


Cases = Callable[[str], Case]


def masters(state: State) -> State:
    return {name: tensor.float() for name, tensor in state.items()}


def same(agent: Checkpoint, case: Case) -> None:
    """Check that `agent` has the tensors of `case`, stored as the base stores its own, and can be merged into it."""
    view = Family.open(case.base, {"agent": agent}).members["agent"]
    found: State = {}
    for file in agent.weight_files:
        found |= load_file(file)
    assert view.tensors.keys() == case.base.tensors.keys()
    for name in case.base.tensors:
        assert found[name].dtype == case.stored[name].dtype
        assert torch.equal(found[name], case.stored[name]), name


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_names_in_memory_differ_from_names_on_disk(cases: Cases, kind: str) -> None:
    """Otherwise the tests below would show nothing."""
    case = cases(kind)
    assert set(case.base.tensors) - set(case.held)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_verl_shards_of_the_live_model(cases: Cases, tmp_path: Path, kind: str) -> None:
    case = cases(kind)
    actor = save_dtensors(tmp_path / "actor", masters(case.held), {"fsdp": 2}, [Shard(0)])
    same(fetch(str(actor), base=case.base), case)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_distributed_checkpoint_of_the_live_model(cases: Cases, tmp_path: Path, kind: str) -> None:
    case = cases(kind)
    save_distributed(tmp_path / "step", {"model": masters(case.held)})
    same(fetch(str(tmp_path / "step"), base=case.base), case)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_safetensors_of_the_live_model(cases: Cases, tmp_path: Path, kind: str) -> None:
    """`save_pretrained(save_original_format=False)`, and what older releases of transformers wrote."""
    case = cases(kind)
    agent = shutil.copytree(case.base.path, tmp_path / "agent")
    aliases = ARCHITECTURES[kind]().all_tied_weights_keys
    held = {name: tensor.clone() for name, tensor in case.held.items() if name not in aliases}
    save_file(held, agent / "model.safetensors", metadata={"format": "pt"})
    same(fetch(str(agent), base=case.base), case)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_base_that_is_stored_as_in_memory(cases: Cases, tmp_path: Path, kind: str) -> None:
    """The agent comes as older releases store it, and is brought into the layout of its base."""
    case = cases(kind)
    model = ARCHITECTURES[kind]().to(torch.bfloat16)
    model.save_pretrained(tmp_path / "base", save_original_format=False)
    base = open_checkpoint(tmp_path / "base")
    agent = shutil.copytree(case.base.path, tmp_path / "agent")
    save_file(case.stored, agent / "model.safetensors", metadata={"format": "pt"})
    found = fetch(str(agent), base=base)
    tensors = load_file(found.path / "model.safetensors")
    assert found.tensors.keys() == base.tensors.keys()
    assert all(torch.equal(tensors[name], case.held[name]) for name in base.tensors)


def test_without_a_base_the_layout_is_the_usual_one(cases: Cases, tmp_path: Path) -> None:
    case = cases("qwen3_moe")
    actor = save_dtensors(tmp_path / "actor", case.held, {"fsdp": 2}, [Shard(0)])
    shutil.copyfile(case.base.path / "config.json", actor / "config.json")
    found = load_file(fetch(str(actor)).path / "model.safetensors")
    assert found.keys() == case.stored.keys()
    assert all(torch.equal(found[name], case.stored[name]) for name in found)


def test_few_fused_tensors_are_in_memory_at_once(cases: Cases) -> None:
    case = cases("qwen3_moe")
    architecture = Architecture.of(case.base.config, case.base.tensors.keys())
    assert architecture is not None
    read: list[str] = []

    def lazy(name: str, tensor: torch.Tensor) -> LazyTensor:
        def load() -> torch.Tensor:
            read.append(name)
            return tensor

        return LazyTensor(tensor.dtype, tuple(tensor.shape), load)

    found = architecture.translate({name: lazy(name, tensor) for name, tensor in case.held.items()})
    assert found is not None
    assert read == []
    for name in sorted(found):  # the order in which models are written
        found[name].read()
    assert sorted(read) == sorted(case.held)  # each once, although an expert is a part of a fused tensor


@pytest.mark.parametrize(
    "changes",
    [{"model_type": "own"}, {"architectures": ["OwnForCausalLM"]}, {"architectures": None}, {"hidden_size": "x"},
     {"num_hidden_layers": 10**9}, {"architectures": ["AutoModel"]}, {"architectures": ["logging"]}],
    ids=str,
)  # fmt: skip
def test_an_architecture_that_is_not_known_is_none(cases: Cases, tmp_path: Path, changes: dict[str, Any]) -> None:
    path = shutil.copytree(cases("qwen3_moe").base.path, tmp_path / "model")
    opened = open_checkpoint(edit_config(path, **changes))
    assert Architecture.of(opened.config, opened.tensors.keys()) is None


# --- every table of transformers ---


def configured_classes() -> dict[str, str]:
    """Return class name -> model type of the models that generate and that transformers converts when loading."""
    mappings = (
        modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    )
    pairs = [(str(name), kind) for mapping in mappings for kind, name in mapping.items() if isinstance(name, str)]
    return {name: kind for name, kind in reversed(pairs) if get_checkpoint_conversion_mapping(kind) is not None}


CLASSES = configured_classes()
# The default configurations of these, with few layers or at all, build no model. No checkpoint has them.
WITHOUT_DEFAULT = {
    "AyaVisionForConditionalGeneration", "DeepseekOcr2ForConditionalGeneration", "Dots1ForCausalLM", "Emu3ForCausalLM",
    "Emu3ForConditionalGeneration", "Gemma3nForCausalLM", "Gemma4UnifiedForConditionalGeneration",
    "HunYuanMoEV1ForCausalLM", "HunYuanVLForConditionalGeneration", "Lfm2MoeForCausalLM", "Qwen4ExpForCausalLM",
}  # fmt: skip


def default_config(name: str) -> dict[str, Any]:
    """Return the default configuration of a class as its config.json would have it, with few layers."""
    settings = transformers.CONFIG_MAPPING[CLASSES[name]]()
    for part in (settings, *(getattr(settings, key, None) for key in settings.sub_configs)):
        for count in ("num_hidden_layers", "num_layers"):
            layers = getattr(part, count, None)
            if isinstance(layers, int) and layers > 4:
                setattr(part, count, 4)
                for key, value in list(vars(part).items()):
                    if isinstance(value, list) and len(value) == layers:  # the kind of each layer
                        setattr(part, key, value[:4])
    return {**settings.to_dict(), "architectures": [name]}


def lazy(state: State) -> dict[str, LazyTensor]:
    return {name: constant(tensor) for name, tensor in state.items()}


def shapes(tensors: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


@pytest.mark.parametrize("name", [name for name in CLASSES if name not in WITHOUT_DEFAULT])
def test_every_table_is_followed_both_ways(name: str) -> None:
    config = default_config(name)
    architecture = Architecture.of(config)
    assert architecture is not None
    held = dict(architecture.held)
    stored = architecture.translate(lazy(held))
    assert stored is not None
    assert shapes(stored) == shapes(revert_weight_conversion(architecture.model, held))
    assert get_model_conversion_mapping(architecture.model)

    aliases = architecture.model.all_tied_weights_keys
    for layout in (stored, lazy(held)):
        kept = Architecture.of(config, list(layout))
        assert kept is not None
        for tensors in (stored, lazy(held)):
            found = kept.translate(tensors)
            assert found is not None
            assert layout.keys() - aliases <= found.keys() <= layout.keys()
            assert shapes(found).items() <= shapes(layout).items()
