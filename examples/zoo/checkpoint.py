"""Checkpoints on disk: written in bfloat16 with a record of how they were made, read back in float32."""

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from examples.zoo.tokenizer import STOP
from rammerge.system.atomic import write_json

CHECKPOINTS = Path(__file__).resolve().parent / "checkpoints"  # the committed ones
RECORD = "training.json"


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a complete checkpoint to `folder`, which is made or replaced only once the checkpoint is complete.

    `model` itself is rounded to the nearest bfloat16 values and stays that way.
    """
    model.generation_config = GenerationConfig(
        do_sample=False,
        eos_token_id=[tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(STOP)],
        pad_token_id=tokenizer.pad_token_id,
    )
    place(model.to(torch.bfloat16), tokenizer, folder)


def place(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a model as it is, and its tokenizer, to `folder`, which is made or replaced only once both are complete."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        model.save_pretrained(beside)
        tokenizer.save_pretrained(beside)
        beside.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)
        beside.replace(folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def load(folder: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Return the model of a checkpoint, its weights in float32, and the tokenizer."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model, AutoTokenizer.from_pretrained(folder)


def weights_digest(folder: Path) -> str:
    """Return the SHA-256 of a checkpoint's weights."""
    with (folder / "model.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write the record of how the checkpoint in `folder` was made, beside its weights."""
    write_json(folder / RECORD, record)


def read_record(folder: Path) -> dict[str, Any]:
    """Return the record of how the checkpoint in `folder` was made."""
    record: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    return record
