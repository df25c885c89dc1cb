"""Compare the speed and memory of merges with plain copies of the same files and with mergekit, in one run.

    python -m benchmarks.merge --scratch DIR [--sizes 0.5B 1.5B] [--runs 3] [--cold] [--mergekit PYTHON] [--table FILE]
    python -m benchmarks.merge --scratch DIR --variants [--sizes 0.5B] [--runs 3] [--cold]

The reference is the limit that the disk sets: `cat` of all inputs to nowhere and then `cp` of the base, with one more
`cat` for each further pass of the method. Each merge has two times: the whole process, and the merge itself, which
leaves out the start of Python and the hashing of the inputs. Hashes and compiled functions are remembered, so only the
first run makes them. Each method's first run starts from nothing and has a column of its own. mergekit runs from an
environment of its own: `python -m venv X && X/bin/pip install mergekit`, then --mergekit X/bin/python. The disk needs
about 20 bytes for each parameter of the largest size.

With --variants, nine variants that are merged together are measured beside `cat` of all inputs and nine times `cp` of
the base, which does not wait for the disk, and beside the same with a last `sync`, which does, as merges do.
"""

import argparse
import os
import platform
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Measurement, median, repeat, run
from benchmarks.mergekit import RIVALS, Rival, command
from benchmarks.variants import VARIANTS

METHODS = {"ram": (), "ram_plus": (), "task_arithmetic": (), "ties": ()}
READS = {"ram": 1, "task_arithmetic": 1, "ram_plus": 2, "ties": 3}
_STAGE = re.compile(r"(?P<stage>statistics|merge and write|publish|digest inputs) (?P<seconds>[0-9.]+) s")


def main() -> None:
    """Measure and print; with --table also write the table as markdown."""
    arguments = _parser().parse_args()
    os.environ["RAMMERGE_HOME"] = str(arguments.scratch.absolute() / "home")
    rows = []
    for size in arguments.sizes:
        rows += _measure_variants(arguments, size) if arguments.variants else _measure_size(arguments, size)
    table = _markdown(rows, arguments)
    print(table)
    if arguments.table:
        arguments.table.write_text(table, encoding="utf-8")


@dataclass(frozen=True)
class _Models:
    """The models of one size, and what reading and copying them takes: the limit that the disk sets."""

    size: str
    base: Path
    agents: Mapping[str, Path]
    read: Measurement
    copy: Measurement


def _measure_size(arguments: argparse.Namespace, size: str) -> list[list[str]]:
    models = _prepare(arguments, size)
    rows = [
        [size, "`cat` of all inputs", _s(models.read.seconds), "", "", "", ""],
        [size, "`cp` of the base", _s(models.copy.seconds), "", "", "", ""],
    ]
    wanted = [method for method in arguments.methods if method in RIVALS]
    rivals = {name: _mergekit(arguments, RIVALS[name], models.base, list(models.agents.values())) for name in wanted}
    for method in arguments.methods:
        rows.append(_measure_method(arguments, models, method, rivals.get(method)))
        print(" | ".join(rows[-1]), flush=True)
    for name, measured in rivals.items():
        if measured:
            cells = ["", f"{measured.peak / 2**20:.0f} MiB", "", ""]
            rows.append([size, f"mergekit {RIVALS[name].name}", _s(measured.seconds), *cells])
            print(" | ".join(rows[-1]), flush=True)
    return rows


def _measure_variants(arguments: argparse.Namespace, size: str) -> list[list[str]]:
    models, count = _made(arguments, size), len(VARIANTS)
    quoted = [shlex.quote(str(model)) for model in models]
    copies = f"mkdir $0; cat {' '.join(f'{model}/*.safetensors' for model in quoted)} > /dev/null"
    copies += f"; for i in $(seq {count}); do cp -r {quoted[0]} $0/$i; done"
    merge = f"{shlex.quote(sys.executable)} -m benchmarks.variants $0 {' '.join(quoted)}"

    def timed(script: str, runs: int = arguments.runs) -> Measurement:
        return median(_timed(arguments, lambda out: ["sh", "-c", script, str(out)], runs))

    shutil.rmtree(os.environ["RAMMERGE_HOME"], ignore_errors=True)
    first, plain, flushed, merged = timed(merge, 1), timed(copies), timed(f"{copies}; sync"), timed(merge)
    ratios = f"{merged.seconds / plain.seconds:.2f}x, {merged.seconds / flushed.seconds:.2f}x with `sync`"
    print(merged.output)
    return [
        [size, f"`cat` of all inputs, {count} `cp` of the base", _s(plain.seconds), "", "", "", ""],
        [size, "the same and `sync`", _s(flushed.seconds), "", "", "", ""],
        [
            size,
            f"{count} variants",
            f"{_s(merged.seconds)} ({ratios})",
            f"{_s(merged.cpu_seconds)} of processor time",
            f"{merged.peak / 2**20:.0f} MiB",
            _s(first.seconds),
            "",
        ],
    ]


def _made(arguments: argparse.Namespace, size: str) -> list[Path]:
    """Return the base and the agents, which are made if they are not there."""
    # In a process of its own, because a child's peak memory starts from that of its parent.
    run([sys.executable, "-m", "benchmarks.models", str(arguments.scratch), size, str(arguments.agents)])
    return [arguments.scratch / size / name for name in ("base", *(f"agent{at}" for at in range(arguments.agents)))]


def _prepare(arguments: argparse.Namespace, size: str) -> _Models:
    models = _made(arguments, size)
    nbytes = sum(file.stat().st_size for model in models for file in model.glob("*.safetensors"))
    everything = " ".join(shlex.quote(str(model)) + "/*.safetensors" for model in models)
    read = median(_timed(arguments, lambda _: ["sh", "-c", f"cat {everything} > /dev/null"], arguments.runs))
    copy = median(_timed(arguments, lambda out: ["cp", "-r", str(models[0]), str(out)], arguments.runs))
    print(f"{size}: inputs {nbytes / 1e9:.2f} GB, cat {read.seconds:.2f} s, cp {copy.seconds:.2f} s", flush=True)
    return _Models(size, models[0], {model.name: model for model in models[1:]}, read, copy)


def _measure_method(
    arguments: argparse.Namespace, models: _Models, method: str, rival: Measurement | None
) -> list[str]:
    named = [word for name, path in models.agents.items() for word in ("--agent", f"{name}={path}")]

    def command(out: Path) -> list[str]:
        return [
            *(sys.executable, "-m", "rammerge", "merge", "--base", str(models.base), *named, "--out", str(out)),
            *("--method", method, "--dtype", "bfloat16", "--compile", arguments.compile),
        ]

    shutil.rmtree(os.environ["RAMMERGE_HOME"], ignore_errors=True)
    first = _timed(arguments, command, 1)[0]
    whole = median(_timed(arguments, command, arguments.runs))
    stages = {match["stage"]: float(match["seconds"]) for match in _STAGE.finditer(whole.output)}
    itself = sum(seconds for stage, seconds in stages.items() if stage != "digest inputs")
    allowed = READS[method] * models.read.seconds + models.copy.seconds
    plain = models.read.seconds + models.copy.seconds
    return [
        models.size,
        f"rammerge {method}",
        f"{_s(whole.seconds)} ({whole.seconds / plain:.1f}x of the plain copies)",
        f"{_s(itself)} ({itself / allowed:.2f}x of {READS[method]} reads + copy)",
        f"{whole.peak / 2**20:.0f} MiB",
        f"{_s(first.seconds)} ({first.seconds / plain:.1f}x of the plain copies)",
        f"{rival.seconds / whole.seconds:.1f}x faster than mergekit" if rival else "",
    ]


def _timed(arguments: argparse.Namespace, command: Callable[[Path], Sequence[str]], runs: int) -> list[Measurement]:
    return repeat(command, runs, arguments.scratch, cold=arguments.cold)


def _mergekit(arguments: argparse.Namespace, rival: Rival, base: Path, agents: list[Path]) -> Measurement | None:
    if arguments.mergekit is None:
        return None

    def words(out: Path) -> list[str]:
        return command(arguments.mergekit, rival, base, agents, out, arguments.scratch / f"mergekit-{rival.name}.yaml")

    return median(repeat(words, arguments.mergekit_runs, arguments.scratch, cold=arguments.cold))


def _markdown(rows: list[list[str]], arguments: argparse.Namespace) -> str:
    cache = "cold" if arguments.cold else "warm"
    head = ["size", "what", "whole process", "the merge itself", "peak memory", "first run", "against mergekit"]
    lines = [
        f"{os.cpu_count()} processors, {platform.machine()}, {cache} page cache, medians of {arguments.runs} runs, "
        f"{arguments.agents} agents, bfloat16.",
        "",
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
    ]
    return "\n".join(lines)


def _s(seconds: float) -> str:
    return f"{seconds:.2f} s"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, required=True, help="directory for models and outputs")
    parser.add_argument("--sizes", nargs="+", default=["0.5B", "1.5B"])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--agents", type=int, default=3)
    parser.add_argument("--variants", action="store_true", help="measure several variants that are merged together")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--mergekit-runs", type=int, default=1)
    parser.add_argument("--cold", action="store_true", help="drop the page cache before each run (needs root)")
    parser.add_argument("--compile", default="auto", choices=["auto", "always", "never"])
    parser.add_argument("--mergekit", type=Path, help="Python of an environment that has mergekit")
    parser.add_argument("--table", type=Path, help="also write the table to this file")
    return parser


if __name__ == "__main__":
    main()
