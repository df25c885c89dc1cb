"""Train agents of SmolLM2: `python -m examples.smollm2.train --device cuda`.

Each agent starts from the base that `examples.smollm2.base` wrote, and is trained by reinforcement learning on one
domain. It is written in bfloat16 to `OUT/seedN/DOMAIN`, with a `training.json` beside its weights. A training that was
interrupted goes on where its state was last written; an agent that is finished is left as it is.

Prompts depend on the seed alone. The weights depend on the machine: on other kernels sampled answers diverge.
"""

import argparse
import platform
import shutil
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers

from examples.smollm2 import grpo
from examples.smollm2.checkpoint import BASE, CHECKPOINTS, load, save
from examples.smollm2.domains import DOMAINS
from examples.zoo.checkpoint import RECORD, read_record, write_record
from rammerge.checkpoints.digest import digest_file

STEPS = 60
PACKAGES = ("torch", "transformers", "trl", "accelerate", "datasets")


def make_agent(out: Path, name: str, settings: grpo.GrpoSettings, device: str, save_every: int) -> None:
    """Train the agent of one domain from `out/base` and write it below `out`, unless it is there already."""
    folder, base = out / f"seed{settings.seed}" / name, digest_file(out / BASE / "model.safetensors").sha256
    if is_finished(folder, settings, base):
        print(f"{name}: {folder} is finished", flush=True)
        return

    def say(step: int, seen: grpo.Step) -> None:
        print(f"{name}: step {step}/{settings.steps}, {seen.seconds:.1f} s, reward {seen.reward:.3f}", flush=True)

    model, tokenizer = load(out / BASE, device)
    scratch = folder.with_name(f".{name}-{settings.digest}-{base[:8]}")
    steps = grpo.train(
        model, tokenizer, DOMAINS[name], settings, device=device, scratch=scratch, save_every=save_every, report=say
    )
    save(model, tokenizer, folder)
    write_record(folder, _record(base, folder, settings, steps, device))
    shutil.rmtree(scratch, ignore_errors=True)


def is_finished(folder: Path, settings: grpo.GrpoSettings, base: str) -> bool:
    """Tell whether the agent with these settings, from the base with that SHA-256 of its weights, is in `folder`."""
    if not (folder / RECORD).is_file():
        return False
    record = read_record(folder)
    return bool(record["settings"] == asdict(settings) and record["sha256"]["base"] == base)


def _record(
    base: str, folder: Path, settings: grpo.GrpoSettings, steps: list[grpo.Step], device: str
) -> dict[str, Any]:
    return {
        "method": "GRPO, AdamW, float32",
        "settings": asdict(settings),
        "reward": [step.reward for step in steps],
        "seconds": round(sum(step.seconds for step in steps)),
        "device": torch.cuda.get_device_name() if device == "cuda" else f"cpu, {torch.get_num_threads()} threads",
        "versions": {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}},
        "sha256": {
            "base": base,
            "agent": digest_file(folder / "model.safetensors").sha256,
        },
    }


def main() -> None:
    """Train the agents that are named, by default all, one after the other."""
    given = _parse()
    transformers.utils.logging.disable_progress_bar()
    settings = grpo.GrpoSettings(
        given.seed, given.steps, given.prompts, given.samples, given.learning_rate, given.temperature
    )
    for name in given.only:
        make_agent(given.out, name, settings, given.device, given.save_every)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train agents of SmolLM2 by GRPO, each on one domain.")
    parser.add_argument("--out", type=Path, default=CHECKPOINTS, help="folder with the base, and for the agents")
    parser.add_argument("--only", nargs="+", choices=DOMAINS, default=list(DOMAINS), help="domains; default: all")
    parser.add_argument("--seed", type=int, default=0, help="of prompts and samples; one folder each")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cpu")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--prompts", type=int, default=grpo.GrpoSettings.prompts, help="of each step")
    parser.add_argument("--samples", type=int, default=grpo.GrpoSettings.samples, help="answers to each prompt")
    parser.add_argument("--learning-rate", type=float, default=grpo.GrpoSettings.learning_rate)
    parser.add_argument("--temperature", type=float, default=grpo.GrpoSettings.temperature)
    parser.add_argument("--save-every", type=int, default=10, help="steps between states of the training; 0: none")
    given = parser.parse_args()
    if not (given.out / BASE).is_dir():
        parser.error(f"{given.out / BASE} does not exist; make it: python -m examples.smollm2.base --out {given.out}")
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU here; use --device cpu")
    return given


if __name__ == "__main__":
    main()
