"""Contract of an adapter's settings: every one that PEFT has is honored or refused with the true reason.

The settings, kinds of adapters and initializations are taken from the PEFT that is installed: a new one fails here
until somebody has decided what it means for the merged weights.
"""

import dataclasses
import json
import shutil
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from rammerge.checkpoints.checkpoint import Checkpoint, open_checkpoint
from rammerge.checkpoints.fetch import fetch
from rammerge.checkpoints.forms.lora_settings import NOT_MERGED, UNDERSTOOD, LoraSettings
from rammerge.errors import InputError
from tests.fixtures.adapters import logits, train_adapter
from tests.fixtures.models import save_model

SETTINGS = {field.name: field for field in dataclasses.fields(peft.LoraConfig)}
LINEAR = ["q_proj", "v_proj"]

# Every setting that changes what is trained or saved, switched on, with the model that it is for.
HONORED: dict[str, dict[str, Any]] = {
    "alpha_pattern": {"alpha_pattern": {"q_proj": 2}},
    "bias": {"bias": "all"},
    "ensure_weight_tying": {"ensure_weight_tying": True, "modules_to_save": ["embed_tokens"]},
    "exclude_modules": {"exclude_modules": ["v_proj"]},
    "fan_in_fan_out": {"fan_in_fan_out": False},
    "init_lora_weights": {"init_lora_weights": "gaussian"},
    "layers_to_transform": {"layers_to_transform": [1]},
    "layers_pattern": {"layers_to_transform": [0], "layers_pattern": "layers"},
    "lora_alpha": {"lora_alpha": 3},
    "lora_bias": {"lora_bias": True},
    "lora_dropout": {"lora_dropout": 0.5},
    "modules_to_save": {"modules_to_save": ["lm_head"]},
    "r": {"r": 3},
    "rank_pattern": {"rank_pattern": {"q_proj": 2}},
    "target_modules": {"target_modules": "all-linear"},
    "task_type": {"task_type": "CAUSAL_LM"},
    "trainable_token_indices": {"trainable_token_indices": [3]},
    "use_dora": {"use_dora": True},
    "use_rslora": {"use_rslora": True},
}
# Settings that say where an adapter comes from or how it is run, and nothing of its weights.
WITHOUT_EFFECT = {
    "auto_mapping", "base_model_name_or_path", "eva_config", "inference_mode", "megatron_core", "peft_type",
    "peft_version", "qalora_group_size", "revision", "runtime_config",
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_checkpoint(save_model(tmp_path_factory.mktemp("base") / "model", "qwen2", dtype=torch.float32))


def test_every_setting_of_peft_is_decided() -> None:
    assert SETTINGS.keys() <= UNDERSTOOD | NOT_MERGED.keys()
    assert not UNDERSTOOD & NOT_MERGED.keys()
    assert SETTINGS.keys() - NOT_MERGED.keys() == HONORED.keys() | WITHOUT_EFFECT


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("setting", HONORED)
def test_an_honored_setting_gives_what_was_trained(base: Checkpoint, tmp_path: Path, setting: str) -> None:
    options = {"target_modules": LINEAR, **HONORED[setting]}
    trained = train_adapter(base.path, tmp_path / "adapter", **options)
    torch.testing.assert_close(logits(fetch(str(trained.path), base=base).path), trained.logits, atol=1e-6, rtol=0)
    assert not torch.equal(logits(base.path), trained.logits)


def settings_file(directory: Path, **changes: Any) -> Path:
    file = directory / "adapter_config.json"
    file.write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 4, **changes}))
    return file


@pytest.mark.parametrize("setting", NOT_MERGED)
def test_any_other_setting_is_refused_with_the_reason(tmp_path: Path, setting: str) -> None:
    start = setting.removesuffix("_config") if setting in ("corda_config", "loftq_config", "lora_ga_config") else True
    file = settings_file(tmp_path, **{setting: {"on": 1}, "init_lora_weights": start})
    with pytest.raises(InputError, match=f"uses '{setting}', which {NOT_MERGED[setting][0]}; "):
        LoraSettings.read(file)
    LoraSettings.read(settings_file(tmp_path, **{setting: None}))


def starts() -> list[str]:
    kind = typing.get_type_hints(peft.LoraConfig)["init_lora_weights"]
    literals = [option for option in typing.get_args(kind) if typing.get_origin(option) is typing.Literal]
    names = {str(name) for literal in literals for name in typing.get_args(literal)}
    return sorted(name.replace("[number of iters]", "16") for name in names)


# Those that leave the base as it was. The others subtract something from it when the adapter is made or loaded.
NEUTRAL = {"gaussian", "eva", "orthogonal", "mica"}


@pytest.mark.parametrize("start", [*starts(), "one_of_tomorrow"])
def test_every_initialization_is_decided(tmp_path: Path, start: str) -> None:
    file = settings_file(tmp_path, init_lora_weights=start)
    if start in NEUTRAL:
        LoraSettings.read(file)
    else:
        with pytest.raises(InputError, match=f"init_lora_weights '{start}', which changes the base"):
            LoraSettings.read(file)


# Adapters whose tuner in PEFT inherits `merge_and_unload` and cannot do it: they depend on each input.
BY_INPUT = {"POLY", "SHADOW", "XLORA"}


@pytest.mark.parametrize("kind", [kind.value for kind in peft.PeftType])
def test_every_kind_of_adapter_is_decided(tmp_path: Path, kind: str) -> None:
    """The advice to let PEFT merge an adapter is given where PEFT can, and nowhere else."""
    file = settings_file(tmp_path, peft_type=kind)
    if kind == "LORA":
        LoraSettings.read(file)
        return
    with pytest.raises(InputError, match=f"'{kind}' adapter and only LORA adapters can be merged; ") as refusal:
        LoraSettings.read(file)
    tuner = peft.mapping.PEFT_TYPE_TO_TUNER_MAPPING.get(peft.PeftType(kind))
    merged_by_peft = hasattr(tuner, "merge_and_unload") and kind not in BY_INPUT
    assert ("merge it with PEFT's merge_and_unload" in str(refusal.value)) is merged_by_peft


# --- adapters that change nothing, and adapters of a different base ---


@pytest.fixture(scope="module")
def trained(base: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_adapter(base.path, tmp_path_factory.mktemp("adapter") / "tool", target_modules=LINEAR).path


@pytest.fixture
def adapter(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "tool")


def edit_settings(adapter: Path, **changes: Any) -> Path:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return adapter


def refused(adapter: Path, base: Checkpoint, says: str) -> None:
    with pytest.raises(InputError, match=says) as refusal:
        fetch(str(adapter), base=base)
    assert "\n" not in str(refusal.value)


def test_a_scaling_of_zero_is_named(adapter: Path, base: Checkpoint) -> None:
    refused(
        edit_settings(adapter, lora_alpha=0), base, r"changes nothing, because its scaling is zero \(lora_alpha 0\)"
    )


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_that_was_saved_before_training_is_named(base: Checkpoint, tmp_path: Path) -> None:
    import transformers

    network = transformers.AutoModelForCausalLM.from_pretrained(base.path)
    peft.get_peft_model(network, peft.LoraConfig(target_modules=LINEAR)).save_pretrained(tmp_path / "tool")
    refused(
        tmp_path / "tool", base, "changes nothing, because its matrices are all zero on one side, as before training"
    )


Edit = Callable[[Path], Path]


def test_an_adapter_of_a_directory_is_compared_by_weights(adapter: Path, base: Checkpoint, tmp_path: Path) -> None:
    copy = shutil.copytree(base.path, tmp_path / "copy")
    assert fetch(str(edit_settings(adapter, base_model_name_or_path=str(copy))), base=base).notes == ()
    tuned = save_model(tmp_path / "sft", "qwen2", dtype=torch.float32, seed=7)
    edit_settings(adapter, base_model_name_or_path=str(tuned))
    refused(
        adapter, base, "is an adapter of '.*/sft', whose weights differ from those of the base, .*; give the base that"
    )
    assert fetch(str(adapter), base=open_checkpoint(tuned)).notes == ()


@pytest.mark.parametrize(
    ("named", "given", "says"),
    [
        ("Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-7B", None),
        ("qwen/qwen2.5-7b", "Qwen/Qwen2.5-7B@main", None),
        (
            "unsloth/Qwen2.5-7B-bnb-4bit",
            "Qwen/Qwen2.5-7B",
            "its adapter was trained on .* a copy of the base by its name",
        ),
        ("Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B", InputError),
        ("me/own-sft", "Qwen/Qwen2.5-7B", InputError),
        ("/home/someone/models/Qwen2.5-7B", "Qwen/Qwen2.5-7B", None),
        ("/home/someone/sft/checkpoint-9", "Qwen/Qwen2.5-7B", "not available here for a comparison"),
        ("Qwen/Qwen2.5-7B", "/models/Qwen2.5-7B", None),
        ("Qwen/Qwen2.5-7B", "/models/base", "not available here for a comparison"),
        (None, "Qwen/Qwen2.5-7B", None),
    ],
)
def test_an_adapter_of_a_hub_model_is_compared_by_name(
    adapter: Path, base: Checkpoint, named: str | None, given: str, says: Any
) -> None:
    revision = None if given.startswith("/") else "f" * 40
    opened = dataclasses.replace(base, source=given, revision=revision)
    edit_settings(adapter, base_model_name_or_path=named)
    if says is InputError:
        refused(
            adapter,
            opened,
            f"is an adapter of '{named}', which is a different model by its name, {given}; give the base",
        )
        return
    notes = fetch(str(adapter), base=opened).notes
    assert len(notes) == (says is not None)
    if says is not None:
        with pytest.raises(InputError, match=says):
            raise InputError(notes[0])


def test_an_adapter_of_another_revision_is_said(adapter: Path, base: Checkpoint) -> None:
    opened = dataclasses.replace(base, source="Qwen/Qwen2.5-7B", revision="f" * 40)
    edit_settings(adapter, base_model_name_or_path="Qwen/Qwen2.5-7B", revision="0" * 40)
    assert "its adapter was trained on revision '000" in fetch(str(adapter), base=opened).notes[0]
    edit_settings(adapter, revision="f" * 40)
    assert fetch(str(adapter), base=opened).notes == ()
