"""Checkpoints for benchmarks: Qwen2.5's shapes, random bfloat16 weights, agents with sparse task vectors.

Densities are those of the paper's three agents (Fig. 2), repeated for more agents. An element moves by one to four
steps of bfloat16.
"""

import json
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file

from rammerge.system.threads import work_through

DENSITIES = (0.032, 0.462, 0.543)
SHARD_SIZE = "1GB"
# hidden, layers, intermediate, attention heads, key-value heads, vocabulary (tied head)
SHAPES = {
    "tiny": (64, 2, 128, 4, 2, 1000),
    "0.1B": (512, 8, 2048, 8, 2, 151936),
    "0.5B": (896, 24, 4864, 14, 2, 151936),
    "1.5B": (1536, 28, 8960, 12, 2, 151936),
    "3B": (2048, 36, 11008, 16, 2, 151936),
}


def tensor_shapes(size: str) -> dict[str, tuple[int, ...]]:
    """Return the tensors of a model by name."""
    hidden, layers, inner, heads, kv_heads, vocabulary = SHAPES[size]
    kv = hidden // heads * kv_heads
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocabulary, hidden),
        "model.norm.weight": (hidden,),
    }
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        for name, rows in (("q_proj", hidden), ("k_proj", kv), ("v_proj", kv)):
            shapes[f"{prefix}self_attn.{name}.weight"] = (rows, hidden)
            shapes[f"{prefix}self_attn.{name}.bias"] = (rows,)
        shapes[f"{prefix}self_attn.o_proj.weight"] = (hidden, hidden)
        for name in ("gate_proj", "up_proj"):
            shapes[f"{prefix}mlp.{name}.weight"] = (inner, hidden)
        shapes[f"{prefix}mlp.down_proj.weight"] = (hidden, inner)
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{prefix}{name}.weight"] = (hidden,)
    return shapes


def make(root: Path, size: str, agents: int, at_once: int = 1) -> None:
    """Write the models base, agent0, agent1, ... below `root`/`size`, except those that exist; `at_once` at a time."""

    def write(agent: int | None) -> None:
        directory = root / size / ("base" if agent is None else f"agent{agent}")
        if not (directory / "config.json").exists():
            _write(directory, size, agent)

    work_through([None, *range(agents)], write, at_once)


def _write(directory: Path, size: str, agent: int | None) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    shapes = tensor_shapes(size)
    meta = {name: torch.empty(shape, dtype=torch.bfloat16, device="meta") for name, shape in shapes.items()}
    split = split_torch_state_dict_into_shards(meta, max_shard_size=SHARD_SIZE)
    for file, names in split.filename_to_tensors.items():
        with ThreadPoolExecutor() as pool:
            tensors = dict(zip(names, pool.map(lambda name: _tensor(name, shapes[name], agent), names), strict=True))
        save_file(tensors, directory / file, metadata={"format": "pt"})
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    (directory / "config.json").write_text(json.dumps(_config(size)))


def _tensor(name: str, shape: tuple[int, ...], agent: int | None) -> torch.Tensor:
    generator = torch.Generator().manual_seed(int.from_bytes(name.encode(), "little") % 2**63)
    values = torch.empty(shape, dtype=torch.bfloat16).normal_(0, 0.02, generator=generator)
    if agent is None:
        return values
    generator.manual_seed(generator.initial_seed() // 2 + agent)
    draws = torch.empty(shape, dtype=torch.int16).random_(0, 1 << 15, generator=generator)
    changed = draws < int(DENSITIES[agent % len(DENSITIES)] * (1 << 15))
    # One to four steps up in magnitude, because consecutive bit patterns are consecutive floats.
    return (values.view(torch.int16) + (draws % 4 + 1) * changed).view(torch.bfloat16)


def _config(size: str) -> Mapping[str, object]:
    hidden, layers, inner, heads, kv_heads, vocabulary = SHAPES[size]
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "intermediate_size": inner,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocabulary,
        "tie_word_embeddings": True,
        "dtype": "bfloat16",
    }


if __name__ == "__main__":
    make(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
