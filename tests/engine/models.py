"""Checkpoints of arbitrary tensors, and reading merged ones back, for tests of the engine."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from rammerge.checkpoints.checkpoint import Checkpoint, open_checkpoint

Tensors = Mapping[str, torch.Tensor]


def write(directory: Path, tensors: Tensors) -> Checkpoint:
    """Write tensors as a checkpoint of no known architecture."""
    directory.mkdir(parents=True)
    save_file(dict(tensors), directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "config.json").write_text(json.dumps({"model_type": "anything"}))
    return open_checkpoint(directory)


def write_family(root: Path, base: Tensors, agents: Sequence[Tensors]) -> tuple[Checkpoint, dict[str, Checkpoint]]:
    """Write a base and its agents, named agent0, agent1, ..."""
    written = {f"agent{index}": write(root / f"agent{index}", agent) for index, agent in enumerate(agents)}
    return write(root / "base", base), written


def read(directory: Path) -> dict[str, torch.Tensor]:
    """Return all tensors of a model directory."""
    found = {}
    for file in sorted(directory.glob("*.safetensors")):
        with safe_open(file, framework="pt") as handle:
            found.update({name: handle.get_tensor(name) for name in handle.keys()})  # noqa: SIM118 (not a dict)
    return found


def as_float64(tensors: Tensors) -> dict[str, np.ndarray]:
    """Return the same as numpy float64."""
    return {name: tensor.double().numpy() for name, tensor in tensors.items()}


def weight_bytes(directory: Path) -> dict[str, bytes]:
    """Return the content of every weight file and of the manifest."""
    files = [*directory.glob("*.safetensors"), *directory.glob("*.json")]
    return {file.name: file.read_bytes() for file in sorted(files)}


def sparse_family(
    shapes: Mapping[str, Sequence[int]],
    densities: Sequence[float],
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.bfloat16,
) -> tuple[dict[str, torch.Tensor], list[dict[str, torch.Tensor]]]:
    """Return a random base and agents that each change a random share of its elements, all in `dtype`."""
    generator = torch.Generator().manual_seed(seed)
    base = {name: (torch.randn(list(shape), generator=generator) * 0.05).to(dtype) for name, shape in shapes.items()}
    agents = []
    for density in densities:
        agent = {}
        for name, values in base.items():
            moved = torch.rand(values.shape, generator=generator) < density
            step = torch.randn(values.shape, generator=generator) * 2e-3
            agent[name] = (values.float() + moved * step).to(dtype)
        agents.append(agent)
    return base, agents
