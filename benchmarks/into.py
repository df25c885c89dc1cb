"""Merges into a loaded model, with inputs held in memory, beside copies of the same tensors from memory to memory.

    python -m benchmarks.into --scratch DIR [--size 0.5B] [--agents 3] [--runs 5]

The reference is one copy of the tensors of the base and all agents: a merge reads at least as much, and writes less.
"""

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers

import rammerge
from benchmarks.models import make

METHODS = ("task_arithmetic", "ram", "ram_plus", "ties")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, required=True, help="directory for models")
    parser.add_argument("--size", default="0.5B")
    parser.add_argument("--agents", type=int, default=3)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    make(arguments.scratch, arguments.size, arguments.agents)
    root = arguments.scratch / arguments.size
    agents = {f"agent{index}": root / f"agent{index}" for index in range(arguments.agents)}
    model = transformers.AutoModelForCausalLM.from_pretrained(root / "base", dtype=torch.bfloat16)
    family = rammerge.Family.open(root / "base", agents).held()
    sources = [torch.frombuffer(info.held, dtype=torch.bfloat16) for info in family.base.tensors.values() if info.held]
    copies = [[torch.empty_like(tensor) for tensor in sources] for _ in range(1 + arguments.agents)]

    def copy() -> None:
        for each in copies:
            for target, source in zip(each, sources, strict=True):
                target.copy_(source)

    _report("copy of all inputs", copy, arguments.runs)
    for method in METHODS:

        def trial(method: str = method) -> None:
            rammerge.merge(family, into=model, method=method, dtype="bfloat16")

        _report(method, trial, arguments.runs)


def _report(what: str, work: Callable[[], None], runs: int) -> None:
    work()  # the first compiles, and touches the memory
    seconds, processor = [], []
    for _ in range(runs):
        before, began = _processor_seconds(), time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
        processor.append(_processor_seconds() - before)
    print(
        f"{what}: {statistics.median(seconds):.2f} s, {statistics.median(processor):.2f} s of processor time",
        flush=True,
    )


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
