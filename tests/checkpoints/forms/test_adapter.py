"""Contract: a LoRA adapter merged here equals, bit for bit, the output of PEFT's merge_and_unload.

An adapter that cannot be merged exactly is refused by name.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from rammerge.checkpoints.checkpoint import open_checkpoint
from rammerge.checkpoints.fetch import fetch
from rammerge.checkpoints.forms.adapter import merge_lora
from rammerge.checkpoints.forms.adapter_files import adapter_files, read_adapter
from rammerge.checkpoints.forms.lora_settings import LoraSettings
from rammerge.checkpoints.forms.tensors import LazyTensor, write_model
from rammerge.errors import InputError
from tests.fixtures.models import KINDS, edit_config, save_model

LINEAR = ["q_proj", "v_proj", "down_proj"]

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("llama", {"r": 4, "lora_alpha": 8, "target_modules": LINEAR}),
    "patterns": (
        "llama",
        {
            "r": 4,
            "lora_alpha": 8,
            "target_modules": LINEAR,
            "rank_pattern": {"q_proj": 2, "layers.1.mlp.down_proj": 3},
            "alpha_pattern": {"v_proj": 3, "layers.0.*down_proj": 5},
        },
    ),
    "rslora": ("qwen2", {"r": 3, "lora_alpha": 7, "target_modules": LINEAR, "use_rslora": True}),
    "dora": ("qwen2", {"r": 4, "lora_alpha": 7, "target_modules": LINEAR, "use_dora": True}),
    "input first": ("gpt2", {"r": 3, "lora_alpha": 7, "target_modules": ["c_attn", "c_proj"]}),
    "input first, square": ("gpt2", {"r": 3, "target_modules": ["attn.c_proj"], "fan_in_fan_out": True}),
    "input first, dora": ("gpt2", {"r": 3, "target_modules": ["c_attn", "c_proj"], "use_dora": True}),
    "modules to save": ("llama", {"r": 4, "target_modules": LINEAR, "modules_to_save": ["lm_head", "norm"]}),
    "embedding and head": ("llama", {"r": 4, "target_modules": ["embed_tokens", "lm_head", "q_proj"]}),
    "all biases": ("qwen2", {"r": 4, "target_modules": LINEAR, "bias": "all"}),
    "biases of the adapted": ("qwen2", {"r": 4, "target_modules": LINEAR, "bias": "lora_only"}),
    "bias of the adapter": ("qwen2", {"r": 4, "lora_alpha": 3, "target_modules": ["q_proj"], "lora_bias": True}),
    "mixture of experts": ("moe", {"r": 4, "target_modules": ["q_proj", "o_proj"]}),
    "vision language": ("vision_language", {"r": 4, "target_modules": ["q_proj", "qkv"]}),
    "encoder": ("encoder", {"r": 4, "target_modules": ["query", "dense"]}),
}


def merge(adapter: Path, base: Path) -> dict[str, LazyTensor]:
    settings, weights = adapter_files(adapter)
    return merge_lora(weights, LoraSettings.read(settings), read_adapter(weights), open_checkpoint(base))


def load(base: Path, kind: str, dtype: torch.dtype) -> Any:
    return type(KINDS[kind]()).from_pretrained(base, dtype=dtype)


def save_adapter(base: Path, directory: Path, kind: str, dtype: torch.dtype, options: dict[str, Any]) -> Path:
    import peft

    model = peft.get_peft_model(load(base, kind, dtype), peft.LoraConfig(**options))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator) * 0.05
                parameter.copy_(noise + (1 if "magnitude" in name else 0))
    model.save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, torch.dtype], Path]:
    built: dict[tuple[str, torch.dtype], Path] = {}

    def build(kind: str, dtype: torch.dtype) -> Path:
        if (kind, dtype) not in built:
            built[kind, dtype] = save_model(tmp_path_factory.mktemp("bases") / kind, kind, dtype=dtype)
        return built[kind, dtype]

    return build


Bases = Callable[[str, torch.dtype], Path]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("dtype", "adapter_dtype"),
    [(torch.float32, torch.float32), (torch.bfloat16, torch.float32), (torch.bfloat16, torch.bfloat16)],
    ids=["float32", "bfloat16 base", "bfloat16"],
)
@pytest.mark.parametrize("case", CASES)
def test_equal_to_peft(bases: Bases, tmp_path: Path, case: str, dtype: torch.dtype, adapter_dtype: torch.dtype) -> None:
    import peft

    kind, options = CASES[case]
    base = bases(kind, dtype)
    adapter = save_adapter(base, tmp_path / "adapter", kind, dtype, options)
    weights = adapter / "adapter_model.safetensors"
    save_file({name: tensor.to(adapter_dtype) for name, tensor in load_file(weights).items()}, weights)
    reference = peft.PeftModel.from_pretrained(load(base, kind, dtype), adapter).merge_and_unload()
    reference.save_pretrained(tmp_path / "reference")

    (tmp_path / "merged").mkdir()
    write_model(tmp_path / "merged", merge(adapter, base))

    expected = load_file(tmp_path / "reference" / "model.safetensors")
    found = load_file(tmp_path / "merged" / "model.safetensors")
    before = load_file(base / "model.safetensors")
    assert found.keys() == expected.keys()
    assert any(not torch.equal(found[name], before[name]) for name in found)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype == dtype
        assert torch.equal(found[name], tensor), name


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("base") / "model", "llama")


@pytest.fixture(scope="module")
def plain(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = {"r": 4, "lora_alpha": 8, "target_modules": LINEAR}
    return save_adapter(base, tmp_path_factory.mktemp("plain") / "adapter", "llama", torch.bfloat16, options)


@pytest.fixture
def adapter(plain: Path, tmp_path: Path) -> Path:
    return shutil.copytree(plain, tmp_path / "adapter")


def edit_adapter(adapter: Path, **changes: object) -> Path:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return adapter


def edit_weights(adapter: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    return adapter


def refused(adapter: Path, base: Path, says: str) -> None:
    with pytest.raises(InputError, match=says) as refusal:
        merge(adapter, base)
    assert "\n" not in str(refusal.value)


def test_an_adapter_is_an_agent_of_its_base(adapter: Path, base: Path) -> None:
    (adapter / "tokenizer.json").write_text('{"own": 1}')
    checkpoint = fetch(str(adapter), base=open_checkpoint(base))
    assert checkpoint.tensors.keys() == open_checkpoint(base).tensors.keys()
    assert checkpoint.config == open_checkpoint(base).config
    names = {file.name: file for file in checkpoint.sidecars}
    assert names.keys() == {"config.json", "generation_config.json", "tokenizer.json"}
    assert names["tokenizer.json"].read_text() == '{"own": 1}'
    loaded = transformers.AutoModelForCausalLM.from_pretrained(checkpoint.path)
    assert loaded.get_input_embeddings().weight.isfinite().all()


def test_a_pickled_adapter_gives_the_same(adapter: Path, base: Path) -> None:
    first = fetch(str(adapter), base=open_checkpoint(base))
    torch.save(load_file(adapter / "adapter_model.safetensors"), adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    second = fetch(str(adapter), base=open_checkpoint(base))
    assert second.path != first.path
    assert (second.path / "model.safetensors").read_bytes() == (first.path / "model.safetensors").read_bytes()


def test_an_adapter_needs_its_base(adapter: Path, base: Path, bases: Bases) -> None:
    with pytest.raises(InputError, match=r"is an adapter of .*; give the base"):
        fetch(str(adapter))
    refused(adapter, bases("encoder", torch.bfloat16), "'model.layers.0.*', which the base does not have")
    (adapter / "adapter_model.safetensors").unlink()
    refused(adapter, base, "no adapter_model.safetensors")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"peft_type": "IA3"}, "'IA3' adapter and only LORA"),
        ({"peft_type": None}, "only LORA"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights 'pissa_niter_4', which changes the base"),
        ({"init_lora_weights": "olora"}, "changes the base"),
        ({"target_parameters": ["experts"]}, "uses 'target_parameters'"),
        ({"trainable_token_indices": [1]}, "uses 'trainable_token_indices'"),
        ({"layer_replication": [[0, 2]]}, "uses 'layer_replication'"),
        ({"alora_invocation_tokens": [1]}, "uses 'alora_invocation_tokens'"),
        ({"a_variant_of_tomorrow": True}, "uses 'a_variant_of_tomorrow'"),
        ({"r": 5}, "rank 5 .* weights have rank 4"),
        ({"lora_alpha": "x"}, "alpha 'x'"),
        ({"r": "\n"}, r"rank '\\n' and alpha 8"),
        ({"rank_pattern": {"(": 1}}, "not a map of patterns"),
        ({"rank_pattern": [1]}, "not a map of patterns"),
        ({"use_dora": True}, "lora_A, lora_B for model.layers.0.*cannot be merged exactly"),
    ],
)
def test_other_adapters_than_plain_lora_are_refused(
    adapter: Path, base: Path, changes: dict[str, object], says: str
) -> None:
    refused(edit_adapter(adapter, **changes), base, says)


ONE = torch.tensor(1.0)
KEY = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda tensors: tensors.pop(KEY), "has lora_B for model.layers.0.self_attn.q_proj"),
        (lambda tensors: tensors.update({KEY: torch.ones(4, 3)}), r"by \[16, 3\] and the base has \[16, 16\]"),
        (lambda tensors: tensors.update({KEY: torch.ones(3, 16)}), "not a matrix"),
        (lambda tensors: tensors.update({KEY: torch.ones(4)}), "not a matrix"),
        (lambda tensors: tensors.update({"base_model.model.lm_head.weight": torch.ones(99, 16)}), "replaces lm_head"),
        (lambda tensors: tensors.update({"base_model.model.v_head.weight": torch.ones(1)}), "'v_head.weight', which"),
        (lambda tensors: tensors.update({KEY.replace("lora_A.weight", "lora_B.bias"): torch.ones(16)}), "has none"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    adapter: Path, base: Path, change: Callable[[dict[str, torch.Tensor]], object], says: str
) -> None:
    refused(edit_weights(adapter, change), base, says)


@pytest.mark.parametrize("change", [lambda tensors: tensors.pop(KEY), lambda tensors: tensors.update({KEY: ONE})])
def test_half_an_adapter_is_refused_however_it_is_opened(
    adapter: Path, base: Path, change: Callable[[dict[str, torch.Tensor]], object]
) -> None:
    with pytest.raises(InputError, match=r"self_attn\.q_proj, which cannot be merged"):
        fetch(str(edit_weights(adapter, change)), base=open_checkpoint(base))


def test_a_magnitude_for_another_number_of_outputs_is_refused(bases: Bases, tmp_path: Path) -> None:
    base = bases("qwen2", torch.float32)
    adapter = save_adapter(base, tmp_path / "adapter", "qwen2", torch.float32, CASES["dora"][1])
    magnitude = KEY.replace("lora_A.weight", "lora_magnitude_vector")
    edit_weights(adapter, lambda tensors: tensors.update({magnitude: torch.ones(1)}))
    refused(adapter, base, r"lora_magnitude_vector of shape \[1\] for model.layers.0.self_attn.q_proj, which has 16")


def test_an_edited_config_of_the_base_is_another_conversion(adapter: Path, base: Path, tmp_path: Path) -> None:
    other = edit_config(shutil.copytree(base, tmp_path / "base"), note=1)
    one, two = (fetch(str(adapter), base=open_checkpoint(path)) for path in (base, other))
    assert one.path != two.path
    assert two.config["note"] == 1


VALUES = st.none() | st.booleans() | st.integers(-3, 20) | st.floats() | st.text(max_size=4)


@given(
    changes=st.dictionaries(
        st.sampled_from(["r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "peft_type"])
        | st.text(max_size=4),
        VALUES | st.lists(VALUES, max_size=2) | st.dictionaries(st.text(max_size=4), VALUES, max_size=2),
        max_size=3,
    )
)
@settings(max_examples=100)
def test_any_configuration_is_refused_or_merges(
    plain: Path, base: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    adapter = edit_adapter(shutil.copytree(plain, tmp_path / "adapter", dirs_exist_ok=True), **changes)
    try:
        tensors = merge(adapter, base)
    except InputError as refusal:
        assert "\n" not in str(refusal)
        return
    stored = open_checkpoint(base).tensors
    assert all(tuple(tensor.read().shape) == stored[name].shape for name, tensor in tensors.items())
