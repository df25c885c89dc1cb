"""Checkpoints on disk: written in bfloat16, read back in float32."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from examples.zoo.checkpoint import place

CHECKPOINTS = Path(__file__).resolve().parent / "checkpoints"  # not committed
BASE = "base"


def load(folder: Path, device: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return the model of a checkpoint on `device`, its weights in float32, and the tokenizer."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.to(device), AutoTokenizer.from_pretrained(folder)


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a complete checkpoint to `folder`; `model` itself is rounded to the nearest bfloat16 values."""
    place(model.to(torch.bfloat16), tokenizer, folder)
