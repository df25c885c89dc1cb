"""Measure models quickly: `python -m examples.smollm2.measure MODEL... --device cuda`.

It prints the greedy accuracy of each model on each domain, by default on the validation split. Computing is in float32.
It shows whether a training was worth it; figures with intervals come from `rammerge run`.
"""

import argparse
from pathlib import Path

import transformers

from examples.smollm2.checkpoint import BASE, CHECKPOINTS, load
from examples.smollm2.domains import DOMAINS
from examples.smollm2.make_suites import COUNTS, read_docs
from examples.smollm2.sampling import accuracy


def main() -> None:
    """Measure the models that are named, by default the base."""
    parser = argparse.ArgumentParser(description="Print the greedy accuracy of models on the three domains.")
    parser.add_argument("models", type=Path, nargs="*", default=[CHECKPOINTS / BASE])
    parser.add_argument("--split", choices=COUNTS, default="validation")
    parser.add_argument("--limit", type=int, help="items of each domain; default: all")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cpu")
    given = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    for folder in given.models:
        model, tokenizer = load(folder, given.device)
        for name, domain in DOMAINS.items():
            docs = read_docs(name, given.split)[: given.limit]
            reached = accuracy(model, tokenizer, domain, docs)
            print(f"{folder}: {name} {reached:.1%} of {len(docs)}", flush=True)


if __name__ == "__main__":
    main()
