"""Checkpoints of arbitrary tensors for tests of the engine, and reading merged ones back."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from rammerge.checkpoints.checkpoint import Checkpoint, open_checkpoint
from rammerge.checkpoints.family import Family, Source
from rammerge.engine.options import MergeOptions
from rammerge.engine.passes import measuring
from rammerge.numerics.masks import Mask
from rammerge.overlap import Overlap
from rammerge.publishing.making import merge_family
from rammerge.publishing.report import MergeReport
from rammerge.rules import METHODS, ResolvedMethod

# The methods that merge without prompts.
DATA_FREE = sorted(name for name, method in METHODS.items() if not method.needs_prompts)

Tensors = Mapping[str, torch.Tensor]
Agents = Mapping[str, Checkpoint]
# A base and its agents by name, as `merge(*models, ...)` takes them.
Models = tuple[Checkpoint, dict[str, Checkpoint]]

_MERGE = """
import json, sys
from pathlib import Path
from rammerge.checkpoints.checkpoint import open_checkpoint
from rammerge.checkpoints.family import Family
from rammerge.engine.forecast import forecast
from rammerge.engine.options import MergeOptions
from rammerge.publishing.making import merge_family
from rammerge.rules import resolve
name, seed, base, out, *agents = sys.argv[1:]
opened = {f"agent{index}": open_checkpoint(Path(agent)) for index, agent in enumerate(agents)}
family = Family.open(open_checkpoint(Path(base)), opened)
method, options = resolve(name), MergeOptions("bfloat16", seed=int(seed), compile="always")
expected = forecast(family, method.bind(family.agents), options).memory
merge_family(family, method, Path(out), options)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps(["torch" in sys.modules, expected, int(peak.split()[1]) * 1024]))
"""


def write(directory: Path, tensors: Tensors) -> Checkpoint:
    """Write tensors as a checkpoint of no known architecture."""
    directory.mkdir(parents=True)
    save_file(dict(tensors), directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "config.json").write_text(json.dumps({"model_type": "anything"}))
    return open_checkpoint(directory)


def write_family(root: Path, base: Tensors, agents: Sequence[Tensors]) -> Models:
    """Write a base and its agents, named agent0, agent1, ..."""
    written = {f"agent{index}": write(root / f"agent{index}", agent) for index, agent in enumerate(agents)}
    return write(root / "base", base), written


def merge(
    base: Source,
    agents: Mapping[str, Source],
    method: ResolvedMethod,
    out: Path,
    options: MergeOptions | None = None,
    **rest: Any,
) -> MergeReport:
    """Open a family and merge it."""
    return merge_family(Family.open(base, agents), method, out, options, **rest)


def measure_overlap(base: Checkpoint, agents: Agents, mask: Mask | None = None) -> Overlap:
    """Open a family and measure its overlap."""
    return measuring.measure_overlap(Family.open(base, agents), mask)


def read(directory: Path) -> dict[str, torch.Tensor]:
    """Return all tensors of a model directory."""
    found = {}
    for file in sorted(directory.glob("*.safetensors")):
        with safe_open(file, framework="pt") as handle:
            found.update({name: handle.get_tensor(name) for name in handle.keys()})  # noqa: SIM118 (not a dict)
    return found


def as_float64(tensors: Tensors) -> dict[str, npt.NDArray[np.float64]]:
    """Return the tensors as numpy float64."""
    return {name: tensor.double().numpy() for name, tensor in tensors.items()}


def weight_bytes(directory: Path) -> dict[str, bytes]:
    """Return the content of every weight file and of the manifest."""
    files = [*directory.glob("*.safetensors"), *directory.glob("*.json")]
    return {file.name: file.read_bytes() for file in sorted(files)}


def merged_without_torch(family: Models, method: str, out: Path, seed: int = 0) -> dict[str, bytes]:
    """Merge to bfloat16 in a new process, with functions that are already compiled; return the content of `out`."""
    base, agents = family
    arguments = [method, str(seed), *map(str, (base.path, out, *(agent.path for agent in agents.values())))]
    process = subprocess.run([sys.executable, "-c", _MERGE, *arguments], check=True, capture_output=True, text=True)
    imported, expected, peak = json.loads(process.stdout)
    assert not imported, "compiled functions are all that the merge needs, and importing torch takes a second"
    assert abs(peak - expected) <= 0.2 * expected
    return weight_bytes(out)


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
