"""Make the zoo from seeds: `python -m examples.zoo.train --out DIR`.

It pre-trains the base, exports it, and trains one agent per domain by reinforcement learning. Agents start from the
*exported* base, so that base and agent can be compared element by element. Each model is written in bfloat16 with a
`training.json` beside its weights. Stages can run one at a time: `--only base`, then `--only code`, and so on.

The data are reproducible bit by bit on every machine. The weights are reproducible on one machine with one torch
release. Elsewhere matrix kernels round differently, so sampled completions and then weights diverge; accuracies and
densities come out similar, not equal. One thread is used throughout, because the result depends on the number of them.
"""

import argparse
import platform
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers
import trl
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from examples.zoo import grpo, pretrain
from examples.zoo.checkpoint import CHECKPOINTS, load, read_record, save, weights_digest, write_record
from examples.zoo.domains import DOMAINS
from examples.zoo.measure import accuracies, sparsities
from examples.zoo.regimes import AGENTS, REGIMES, GrpoSettings, settings_of
from examples.zoo.tokenizer import build_tokenizer

STAGES = ("base", *AGENTS)


def make_base(folder: Path, settings: pretrain.PretrainSettings) -> None:
    """Pre-train the base and write it to `folder`."""
    started = time.monotonic()
    tokenizer = build_tokenizer()
    model = pretrain.build_model(tokenizer, settings.seed)
    curve = []
    for step, losses in enumerate(pretrain.train(model, tokenizer, settings), 1):
        if step % 100 == 0:
            curve.append({"step": step, **{name: round(loss, 4) for name, loss in losses.items()}})
            _say(
                folder.name,
                step,
                settings.steps,
                started,
                " ".join(f"{name} {loss:.3f}" for name, loss in losses.items()),
            )
    record = {"method": "next-token prediction", "settings": asdict(settings), "loss": curve}
    _finish(folder, model, tokenizer, record, started)


def make_agent(base: Path, folder: Path, settings: GrpoSettings) -> None:
    """Train the agent of the domain that `folder` is named after from `base`, and write it to `folder`."""
    started = time.monotonic()
    name, base_digest = folder.name, weights_digest(base)
    model, tokenizer = load(base)
    curve: list[float] = []

    def note(step: int, reward: float) -> None:
        curve.append(round(reward, 4))
        if step % 10 == 0:
            _say(name, step, settings.steps, started, f"reward {reward:.3f}")

    grpo.train(model, tokenizer, DOMAINS[name], settings, note)
    record = {"method": "GRPO", "settings": asdict(settings), "reward": curve, "base_sha256": base_digest}
    _finish(folder, model, tokenizer, record, started)


def record_sparsities(out: Path) -> None:
    """Add its density and unique share to each agent's record. They depend on all agents."""
    for name, sparsity in sparsities(out).items():
        write_record(out / name, {**read_record(out / name), **asdict(sparsity)})


def _finish(
    folder: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, record: dict[str, Any], started: float
) -> None:
    """Export a model, measure the export, and write the record beside the weights."""
    seconds = round(time.monotonic() - started)
    save(model, tokenizer, folder)
    reached = accuracies(folder, "validation")
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "trl": trl.__version__,
    }
    write_record(folder, record | {"seconds": seconds, "versions": versions, "validation_accuracy": reached})
    print(
        f"{folder.name}: validation " + ", ".join(f"{name} {share:.1%}" for name, share in reached.items()), flush=True
    )


def _say(stage: str, step: int, steps: int, started: float, seen: str) -> None:
    print(f"{stage}: step {step}/{steps}, {time.monotonic() - started:.0f} s, {seen}", flush=True)


def main() -> None:
    """Run the stages that are named, by default all."""
    parser = argparse.ArgumentParser(description="Train the zoo's base and its three agents from seeds.")
    parser.add_argument("--out", type=Path, default=CHECKPOINTS, help="folder for the checkpoints")
    parser.add_argument("--only", nargs="+", choices=STAGES, default=STAGES, help="stages to run; agents need a base")
    parser.add_argument("--seed", type=int, default=1, help="of the base; those of the agents derive from it")
    parser.add_argument("--regime", choices=REGIMES, default="sgd", help="how the agents are trained")
    arguments = parser.parse_args()
    out: Path = arguments.out
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    for stage in STAGES:
        if stage not in arguments.only:
            continue
        if stage == "base":
            make_base(out / stage, pretrain.PretrainSettings(seed=arguments.seed))
        else:
            make_agent(out / "base", out / stage, settings_of(stage, arguments.seed, arguments.regime))
    if all((out / stage).is_dir() for stage in STAGES):
        record_sparsities(out)


if __name__ == "__main__":
    main()
