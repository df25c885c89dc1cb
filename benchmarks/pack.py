"""Measure patches: their sizes beside other ways to store an agent, and the speed of packing and unpacking.

    python -m benchmarks.pack --scratch DIR [--size 0.5B] [--runs 3] [--zoo] [--zipnn PYTHON] [--table FILE]

Speeds are bytes of the agent's weights for each second of processor time, without the start of Python, with one thread,
and with the files in the page cache. They include hashing and writing: both ends of a patch are checked by SHA-256.
ZipNN, which compresses weights without a base, runs from an environment of its own: `python -m venv X && X/bin/pip
install zipnn`, then --zipnn X/bin/python.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow

from benchmarks.measure import run
from benchmarks.models import DENSITIES
from rammerge.checkpoints.checkpoint import open_checkpoint
from rammerge.checkpoints.digest import digest_checkpoint
from rammerge.checkpoints.headers import TensorInfo
from rammerge.patches.packing import pack
from rammerge.patches.unpacking import unpack

ZOO = Path(__file__).parents[1] / "examples" / "zoo" / "checkpoints"
# An index of four bytes and a value of two.
_PAIR_BYTES = 6
_HEAD = ("agent", "changed", "weights", "patch", "zstd -3", "ZipNN", "6 bytes an element", "pack", "unpack")
_ZIPNN = """
import sys, zipnn
codec = zipnn.ZipNN(input_format="byte", bytearray_dtype="bfloat16")
print(sum(len(codec.compress(open(file, "rb").read())) for file in sys.argv[1:]))
"""


def main() -> None:
    """Measure and print; with --table also write the table as markdown."""
    arguments = _parser().parse_args()
    scratch: Path = arguments.scratch
    rows = []
    if arguments.size:
        run([sys.executable, "-m", "benchmarks.models", str(scratch), arguments.size, str(len(DENSITIES))])
        made = {f"{density:.0%}": scratch / arguments.size / f"agent{at}" for at, density in enumerate(DENSITIES)}
        rows += _measure(scratch / arguments.size / "base", made, arguments)
    if arguments.zoo:
        agents = {f"zoo, {name}": ZOO / name for name in ("tool", "code", "memory")}
        rows += _measure(ZOO / "base", agents, arguments)
    lines = ["| " + " | ".join(cells) + " |" for cells in (_HEAD, ["---"] * len(_HEAD), *rows)]
    table = "\n".join(lines) + "\n"
    print(table)
    if arguments.table:
        arguments.table.write_text(table, encoding="utf-8")


def _measure(base: Path, agents: Mapping[str, Path], arguments: argparse.Namespace) -> list[list[str]]:
    opened = open_checkpoint(base)
    digest_checkpoint(opened)  # so that no time below is that of hashing the base
    rows = []
    for name, path in agents.items():
        agent = open_checkpoint(path)
        patch, out = arguments.scratch / "patch", arguments.scratch / "unpacked"
        for directory in (patch, out):
            shutil.rmtree(directory, ignore_errors=True)
        report = pack(opened, agent, patch, threads=1)
        packing = _fastest(arguments.runs, partial(pack, opened, agent, patch, threads=1, force=True))
        unpacking = _fastest(arguments.runs, partial(unpack, opened, patch, out, threads=1, force=True))
        changed, elements = _changed(opened.tensors, agent.tensors)
        sizes = [report.nbytes, _zstd(path), _zipnn(arguments.zipnn, path), changed * _PAIR_BYTES]
        smaller = [f"{size / 1e6:,.1f} MB ({report.weights / size:.1f}x)" if size else "" for size in sizes]
        speeds = [f"{report.weights / seconds / 1e9:.2f} GB/s" for seconds in (packing, unpacking)]
        rows.append([name, f"{changed / elements:.1%}", f"{report.weights / 1e6:,.1f} MB", *smaller, *speeds])
        print(" | ".join(rows[-1]), flush=True)
    return rows


def _fastest(runs: int, work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(runs):
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
    return min(seconds)


def _zstd(agent: Path) -> int:
    sizes = []
    for file in agent.glob("*.safetensors"):
        with pyarrow.BufferOutputStream() as sink:
            with pyarrow.CompressedOutputStream(sink, "zstd") as packed, file.open("rb") as content:
                while part := content.read(1 << 24):
                    packed.write(part)
            sizes.append(sink.getvalue().size)
    return sum(sizes)


def _zipnn(python: Path | None, agent: Path) -> int:
    files = [str(file) for file in agent.glob("*.safetensors")]
    # What it prints of itself comes first.
    return int(run([str(python), "-c", _ZIPNN, *files]).output.split()[-1]) if python else 0


def _changed(base: Mapping[str, TensorInfo], agent: Mapping[str, TensorInfo]) -> tuple[int, int]:
    """Return how many elements differ, and how many there are."""
    changed = elements = 0
    for name, info in agent.items():
        one, other = (_bits(each) for each in (info, base[name]))
        changed += int(np.count_nonzero(one != other))
        elements += info.numel
    return changed, elements


def _bits(info: TensorInfo) -> np.ndarray[tuple[int, ...], np.dtype[np.unsignedinteger]]:
    return np.memmap(info.file, f"<u{info.dtype.itemsize}", "r", info.offset, (info.numel,))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, required=True, help="directory for models and patches")
    parser.add_argument("--size", help="size of the models to make (benchmarks/models.py)")
    parser.add_argument("--zoo", action="store_true", help="measure the demo's agents too")
    parser.add_argument("--zipnn", type=Path, help="Python of an environment that has zipnn")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--table", type=Path, help="also write the table to this file")
    return parser


if __name__ == "__main__":
    main()
