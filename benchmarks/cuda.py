"""Compare merges on a GPU with those on the CPU, beside plain copies of the same bytes, in one run.

    python -m benchmarks.cuda --scratch DIR [--sizes 0.5B 1.5B] [--agents 3] [--seconds 110] [--json FILE]

Inputs are in the page cache, and DIR may be in memory (/dev/shm), so that no disk decides. A time is the better of two
runs: of all stages of a merge but the hashing of inputs, or of a whole merge into a model that is loaded on the GPU.
The reference of a file is reading all inputs into memory and copying one of them; of a loaded model it is copying the
tensors of all inputs, from memory to the GPU and within the GPU. Beyond `--seconds`, what is left is not measured.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

import rammerge
from benchmarks.models import make
from rammerge.system.threads import work_through

ON_BOTH = {
    "0.5B": ("ram", "ram_plus", "ties", "dare", "awd", "iso_c", "tsv_m"),
    "1.5B": ("ram", "ram_plus", "ties"),
    "tiny": (),
}
# On a CPU they take minutes.
ON_GPU = {"0.5B": ("della", "wudi", "resmerge"), "1.5B": ("iso_c", "tsv_m"), "tiny": ()}
INTO = ("task_arithmetic", "ram", "ram_plus", "ties", "della")
_NOT_MEASURED = ("digest inputs", "publish")


@dataclass
class _Table:
    """The rows so far, and when to stop measuring."""

    until: float
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, size: str, what: str, **measures: Callable[[], float]) -> None:
        row: dict[str, Any] = {"size": size, "what": what}
        for column, measure in measures.items():
            if time.perf_counter() < self.until:
                row[column] = round(min(measure(), measure()), 3)
        self.rows.append(row)
        print(" ".join(f"{key}={value}" for key, value in row.items()), flush=True)

    def markdown(self) -> str:
        lines = ["| size | | GPU | CPU | |", "|---|---|---|---|---|"]
        for row in self.rows:
            gpu, cpu = row.get("gpu"), row.get("cpu")
            ratio = f"{cpu / gpu:.1f}x" if gpu and cpu else ""
            cells = ["" if seconds is None else f"{seconds:.2f} s" for seconds in (gpu, cpu)]
            lines.append(f"| {row['size']} | {row['what']} | {cells[0]} | {cells[1]} | {ratio} |")
        return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    arguments = _parser().parse_args()
    os.environ["RAMMERGE_HOME"] = str(arguments.scratch.absolute() / "home")
    table = _Table(time.perf_counter() + arguments.seconds)
    _warm_up(arguments.device, arguments.agents)
    for size in arguments.sizes:
        make(arguments.scratch, size, arguments.agents, at_once=1 + arguments.agents)
        print(f"{size}: made {table.until - time.perf_counter():.0f} s before the end", flush=True)
        family = _family(arguments.scratch, size, arguments.agents)
        _measure_files(table, arguments, size, family)
        _measure_into(table, arguments.device, size, family)
        shutil.rmtree(arguments.scratch / size)
    print(table.markdown())
    if arguments.json:
        on_gpu = arguments.device != "cpu"
        name = torch.cuda.get_device_name(arguments.device) if on_gpu else "cpu"
        where = {"device": name, "processors": os.cpu_count(), "torch": torch.__version__}
        arguments.json.write_text(json.dumps({**where, "rows": table.rows}, indent=1), encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, required=True, help="directory for models")
    parser.add_argument("--sizes", nargs="+", default=["0.5B", "1.5B"])
    parser.add_argument("--agents", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=110)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser


def _family(scratch: Path, size: str, agents: int) -> rammerge.Family:
    root = scratch / size
    return rammerge.Family.open(root / "base", {f"agent{at}": root / f"agent{at}" for at in range(agents)})


def _warm_up(device: str, agents: int) -> None:
    """Compile what is compiled, and load the GPU's libraries."""
    with tempfile.TemporaryDirectory() as scratch:
        make(Path(scratch), "tiny", agents)
        family = _family(Path(scratch), "tiny", agents)
        for method in dict.fromkeys([*ON_BOTH["0.5B"], *ON_GPU["0.5B"], *INTO]):
            _merged(family, Path(scratch) / "out", method, device)

        def compiled(method: str) -> None:
            _merged(family, Path(scratch) / method, method, "cpu", compiled="always")

        work_through(ON_BOTH["0.5B"], compiled, len(ON_BOTH["0.5B"]))


def _measure_files(table: _Table, arguments: argparse.Namespace, size: str, family: rammerge.Family) -> None:
    scratch, device, out = arguments.scratch, arguments.device, arguments.scratch / "out"
    table.add(size, "read all inputs, copy one", cpu=partial(_copied, family, scratch))
    for method in ON_BOTH[size]:
        gpu, cpu = (partial(_merged, family, out, method, where) for where in (device, "cpu"))
        table.add(size, f"`{method}`", gpu=gpu, cpu=cpu)
    for method in ON_GPU[size]:
        table.add(size, f"`{method}`", gpu=partial(_merged, family, out, method, device))


def _merged(family: rammerge.Family, out: Path, method: str, device: str, compiled: Any = "auto") -> float:
    """Merge into files, and return the seconds of what is neither hashing inputs nor publishing."""
    settings: Mapping[str, Any] = {"dtype": "bfloat16", "device": device, "compile": compiled}
    report = rammerge.merge(family, out=out, method=method, force=True, **settings)
    return sum(seconds for stage, seconds in report.seconds.items() if stage not in _NOT_MEASURED)


def _copied(family: rammerge.Family, scratch: Path) -> float:
    """Read every input into the same memory, write one of them, and return the seconds."""
    memory, out = bytearray(1 << 24), scratch / "copy"
    start = time.perf_counter()
    for checkpoint in (family.base, *family.members.values()):
        for file in checkpoint.path.glob("*.safetensors"):
            with file.open("rb", buffering=0) as content:
                while content.readinto(memory):
                    pass
    shutil.copytree(family.base.path, out)
    seconds = time.perf_counter() - start
    shutil.rmtree(out)
    return seconds


def _measure_into(table: _Table, device: str, size: str, family: rammerge.Family) -> None:
    """Measure merges into a loaded model, with inputs in files and in memory, beside copies of the inputs' tensors."""
    model = transformers.AutoModelForCausalLM.from_pretrained(family.base.path, dtype=torch.bfloat16).to(device)
    held = family.held()
    checkpoints = (held.base, *held.members.values())
    tensors = [
        torch.frombuffer(info.held, dtype=torch.bfloat16)
        for checkpoint in checkpoints
        for info in checkpoint.tensors.values()
        if info.held
    ]
    table.add(size, "copy all inputs to the GPU", gpu=partial(_timed, device, partial(_sent, tensors, device)))
    there = _sent(tensors, device)
    table.add(size, "copy all inputs within the GPU", gpu=partial(_timed, device, partial(_cloned, there)))
    del there, tensors
    for method in INTO:
        for source, what in ((family, "files"), (held, "held")):
            settings = {"into": model, "method": method, "dtype": "bfloat16", "device": device}
            merge = partial(rammerge.merge, source, **settings)
            table.add(size, f"`{method}` into a model, {what}", gpu=partial(_timed, device, merge))


def _sent(tensors: Sequence[torch.Tensor], device: str) -> list[torch.Tensor]:
    return [tensor.to(device, copy=True) for tensor in tensors]


def _cloned(tensors: Sequence[torch.Tensor]) -> None:
    for tensor in tensors:
        tensor.clone()


def _timed(device: str, work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
