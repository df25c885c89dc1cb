"""Make two agents up: `python -m examples.smollm2.made_up`, once the base is there.

They were never trained. Each is the base with small random changes to a fifth of its elements, enough for a recipe to
run from end to end within minutes of a checkout, and no more.
"""

import argparse
import hashlib
import shutil
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from examples.smollm2.checkpoint import BASE, CHECKPOINTS

AGENTS = ("made-up-one", "made-up-two")
_CHANGED, _STRENGTH = 0.2, 0.05  # share of the elements, and of their tensor's standard deviation
_WEIGHTS = "model.safetensors"


def make_up(base: Path, folder: Path) -> None:
    """Write an agent to `folder`, the same on every machine for the same base and name of the folder."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        beside = Path(scratch) / folder.name
        shutil.copytree(base, beside)
        changed = {
            name: _change(tensor, f"{folder.name}\0{name}") for name, tensor in load_file(base / _WEIGHTS).items()
        }
        save_file(changed, beside / _WEIGHTS, metadata={"format": "pt"})
        shutil.rmtree(folder, ignore_errors=True)
        beside.replace(folder)


def _change(tensor: torch.Tensor, seed: str) -> torch.Tensor:
    """Return the tensor with noise on some elements; `seed` names the tensor and the agent."""
    random = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big") >> 1)
    noise = torch.randn(tensor.shape, generator=random) * (_STRENGTH * float(tensor.float().std()))
    kept = torch.rand(tensor.shape, generator=random) < _CHANGED
    return (tensor.float() + noise * kept).to(tensor.dtype)


def main() -> None:
    """Write both agents beside the base."""
    parser = argparse.ArgumentParser(description="Make two agents of SmolLM2 up, without training.")
    parser.add_argument("--out", type=Path, default=CHECKPOINTS, help="folder with the base")
    given = parser.parse_args()
    if not (given.out / BASE / _WEIGHTS).is_file():
        parser.error(f"{given.out / 'base'} is not there; run python -m examples.smollm2.base first")
    for name in AGENTS:
        make_up(given.out / BASE, given.out / name)
        print(given.out / name)


if __name__ == "__main__":
    main()
