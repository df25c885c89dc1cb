"""Measure the zoo: `python -m examples.zoo.measure [CHECKPOINTS]`.

It prints every model's greedy accuracy on every domain's test split, each agent's density and unique share, and whether
the zoo's floors hold. It exits with 1 if one does not. The weights are bfloat16; computing is in float32.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from examples.zoo.checkpoint import CHECKPOINTS, load
from examples.zoo.domains import DOMAINS
from examples.zoo.make_suites import SUITES
from examples.zoo.sampling import accuracy

EPSILON = 1e-5  # an element is active if agent and base differ by more than this, as in the RAM paper
BASE_ACCURACY = (0.05, 0.65)
AGENT_ACCURACY = 0.88
DENSITY = (0.02, 0.60)
UNIQUE_SHARE = 0.10


@dataclass(frozen=True)
class Sparsity:
    """One agent's share of active elements, and the share of those that are active in no other agent."""

    density: float
    unique_share: float


def read_docs(domain: str, split: str) -> list[dict[str, Any]]:
    """Return the documents of a suite's data file."""
    lines = (SUITES / f"zoo_{domain}" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def accuracies(folder: Path, split: str) -> dict[str, float]:
    """Return the greedy accuracy of the checkpoint in `folder` on each domain's `split`."""
    model, tokenizer = load(folder)
    return {name: accuracy(model, tokenizer, domain, read_docs(name, split)) for name, domain in DOMAINS.items()}


def sparsities(checkpoints: Path) -> dict[str, Sparsity]:
    """Return the sparsity of every agent's task vector."""
    base = _weights(checkpoints / "base")
    agents = {name: _weights(checkpoints / name) for name in DOMAINS}
    active = dict.fromkeys(agents, 0)
    unique = dict.fromkeys(agents, 0)
    for tensor, before in base.items():
        masks = {name: (weights[tensor].float() - before.float()).abs() > EPSILON for name, weights in agents.items()}
        count = sum(mask.int() for mask in masks.values())
        for name, mask in masks.items():
            active[name] += int(mask.sum())
            unique[name] += int((mask & (count == 1)).sum())
    total = sum(weight.numel() for weight in base.values())
    return {name: Sparsity(active[name] / total, unique[name] / max(active[name], 1)) for name in agents}


def missed_floors(scores: dict[str, dict[str, float]], sparsity: dict[str, Sparsity]) -> list[str]:
    """Return one sentence for every floor that does not hold. `scores` is by model, then by domain."""
    missed = []
    for name, reached in sparsity.items():
        base, own = scores["base"][name], scores[name][name]
        if not BASE_ACCURACY[0] <= base <= BASE_ACCURACY[1]:
            missed.append(f"the base reaches {base:.1%} on {name}, outside {BASE_ACCURACY}")
        if own < AGENT_ACCURACY:
            missed.append(f"the {name} agent reaches {own:.1%} on its own domain, below {AGENT_ACCURACY:.0%}")
        if not DENSITY[0] <= reached.density <= DENSITY[1]:
            missed.append(f"the {name} agent's density is {reached.density:.1%}, outside {DENSITY}")
        if reached.unique_share < UNIQUE_SHARE:
            missed.append(f"the {name} agent's unique share is {reached.unique_share:.1%}, below {UNIQUE_SHARE:.0%}")
    return missed


def table(scores: dict[str, dict[str, float]], sparsity: dict[str, Sparsity]) -> str:
    """Return the measurements as a Markdown table."""
    lines = [
        f"| model | {' | '.join(DOMAINS)} | density | unique share |",
        f"|---|{'---|' * (len(DOMAINS) + 2)}",
    ]
    for name, row in scores.items():
        cells = [f"{row[domain]:.1%}" for domain in DOMAINS]
        extra = sparsity.get(name)
        cells += [f"{extra.density:.1%}", f"{extra.unique_share:.1%}"] if extra else ["", ""]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _weights(folder: Path) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = load_file(folder / "model.safetensors")
    return weights


def main() -> None:
    """Measure the checkpoints in a folder, by default the committed ones."""
    parser = argparse.ArgumentParser(description="Measure the zoo's checkpoints on the test split.")
    parser.add_argument("checkpoints", type=Path, nargs="?", default=CHECKPOINTS)
    folder: Path = parser.parse_args().checkpoints
    scores = {name: accuracies(folder / name, "test") for name in ("base", *DOMAINS)}
    sparsity = sparsities(folder)
    print(table(scores, sparsity))
    missed = missed_floors(scores, sparsity)
    print("\n".join(missed) if missed else "every floor holds")
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
