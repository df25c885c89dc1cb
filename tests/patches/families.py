"""Bases and agents with every kind of tensor and file that a patch has to bring back."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from rammerge.checkpoints.patched.blocks import BLOCK

Tensors = dict[str, torch.Tensor]
CONFIG = {"model_type": "anything", "vocab_size": 40, "tie_word_embeddings": True}


def write(directory: Path, shards: Mapping[str, Tensors], config: Mapping[str, object] = CONFIG) -> Path:
    """Write a model directory with the given weight files and a few companions."""
    directory.mkdir(parents=True)
    for file, tensors in shards.items():
        save_file(tensors, directory / file, metadata={"format": "pt", "of": directory.name})
    if len(shards) > 1:
        weight_map = {name: file for file, tensors in shards.items() for name in tensors}
        index = json.dumps({"metadata": {}, "weight_map": weight_map}, indent=3)
        (directory / "model.safetensors.index.json").write_text(index)
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "tokenizer.json").write_text('{"model": {"vocab": {}}}\n')
    (directory / "README.md").write_text(f"# {directory.name}\n")
    (directory / "additional_chat_templates").mkdir()
    (directory / "additional_chat_templates" / "tool.jinja").write_text("{{ messages }}")
    return directory


def moved(tensor: torch.Tensor, density: float, seed: int) -> torch.Tensor:
    """Return a bfloat16 tensor of which some elements are one to three representable steps away."""
    chances = np.random.default_rng(seed)
    changed = chances.random(tensor.shape) < density
    steps = chances.integers(-3, 4, tensor.shape) * changed
    return (tensor.view(torch.int16) + torch.from_numpy(steps.astype(np.int16))).view(torch.bfloat16)


def odd_family(root: Path) -> tuple[Path, Path]:
    """Write a base, and an agent with more rows, odd values, other dtypes, tensors more and less, and repeated ones."""
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=draw).to(torch.bfloat16)

    large, embedding, odd = normal(3, BLOCK // 2), normal(40, 16), normal(64)
    base: Tensors = {
        "embed_tokens.weight": embedding,
        "large.weight": large,
        "odd.weight": odd,
        "gone.weight": normal(8),
        "half.weight": normal(300).half(),
        "master.weight": normal(500),
        "buffer": torch.arange(70, dtype=torch.int64),
        "scalar": torch.tensor(1.5),
    }
    grown = torch.cat([moved(embedding, 0.3, 1), normal(3, 16)])
    values = odd.clone()
    values[:6] = torch.tensor([-0.0, float("nan"), float("inf"), -float("inf"), 0.0, 1e-40])
    values.view(torch.int16)[1] = 0x7FC3  # a NaN with a payload of its own
    agent: Tensors = {
        "embed_tokens.weight": grown,
        "large.weight": moved(large, 0.1, 2),
        "odd.weight": values,
        "half.weight": base["half.weight"] * 1.01,
        "master.weight": base["master.weight"].float() * 1.0001,
        "buffer": torch.arange(70, dtype=torch.int64) * 3,
        "scalar": torch.tensor(1.25),
        "added.weight": normal(5, 5),
        "empty.weight": torch.empty(0, 4),
        "flags": torch.tensor([True, False, True]),
        "quantized": torch.randn(33, generator=draw).to(torch.float8_e4m3fn),
    }
    head: Tensors = {"lm_head.weight": grown.clone(), "last.weight": normal(BLOCK + 7)}
    config = {**CONFIG, "vocab_size": 43}
    files = {"model-00001-of-00002.safetensors": agent, "model-00002-of-00002.safetensors": head}
    directory = write(root / "agent", files, config)
    (directory / "optimizer.pt").write_bytes(b"state of a trainer")
    return write(root / "base", {"model.safetensors": base}), directory


def contents(directory: Path) -> dict[str, bytes]:
    """Return the content of every file below a directory."""
    return {
        file.relative_to(directory).as_posix(): file.read_bytes()
        for file in sorted(directory.rglob("*"))
        if file.is_file()
    }
