"""The table of methods: each merge's time and peak memory beside plain copies, and mergekit where it has the method.

    python -m benchmarks.methods --scratch DIR [--size 0.5B] [--mergekit PYTHON] [--minutes 15] [--only METHOD ...]

Every row is a whole process, from a warm page cache. A method that takes less than `--slow` seconds is run three times
more, which count, when its functions are compiled and the inputs' hashes are known; others are run once. Each row is
written into DIR/methods.jsonl as it is measured, with the plain copies that were measured in the same call (`cat` of
all inputs, then `cp` of the base). A row that is there is not measured again, so a call goes on where the one before
ended: `--minutes` ends it, and `--limit` ends a row. DIR/methods.md has the table so far.

`wudi_adam` takes hours, and `esm` needs a model that runs: name them with --only. For mergekit see
benchmarks/mergekit.py.
"""

import argparse
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import Measurement, median, repeat, run
from benchmarks.mergekit import RIVALS, command
from rammerge.rules import METHODS

_RUNS = 3
_LEFT_OUT = ("wudi_adam", "esm")
Row = dict[str, Any]


def main() -> None:
    """Measure what is missing, and write and print the table."""
    arguments = _parser().parse_args()
    os.environ["RAMMERGE_HOME"] = str(arguments.scratch.absolute() / "home")
    # In a process of its own, because a child's peak memory starts from that of its parent.
    run([sys.executable, "-m", "benchmarks.models", str(arguments.scratch), arguments.size, str(arguments.agents)])
    end, rows, copies = time.monotonic() + 60 * arguments.minutes, _read(arguments), _copies(arguments)
    for who, method in _order(arguments):
        if (who, method) in rows or time.monotonic() > end:
            continue
        rows[who, method] = {"who": who, "method": method, "copies": copies, **_measure(arguments, who, method)}
        with _file(arguments).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"size": arguments.size, **rows[who, method]}) + "\n")
        print(rows[who, method], flush=True)
        (arguments.scratch / "methods.md").write_text(_table(arguments, rows), encoding="utf-8")
    print(_table(arguments, rows))


def _order(arguments: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Yield what to measure, what people ask for most first: quick methods, a few rivals, whole matrices, the rest."""
    wanted = arguments.only or [name for name in METHODS if name not in _LEFT_OUT]
    quick = [name for name in wanted if not METHODS[name].matrices]
    rivals = [name for name in wanted if name in RIVALS and arguments.mergekit]
    yield from (("rammerge", name) for name in quick)
    yield from (("mergekit", name) for name in rivals[:4])
    yield from (("rammerge", name) for name in wanted if name not in quick)
    yield from (("mergekit", name) for name in rivals[4:])


def _measure(arguments: argparse.Namespace, who: str, method: str) -> Row:
    """Return the figures of a row, or why it has none."""
    base, *agents = _models(arguments)

    def merge(out: Path) -> Sequence[str]:
        named = [word for agent in agents for word in ("--agent", f"{agent.name}={agent}")]
        words = [sys.executable, "-m", "rammerge", "merge", "--base", str(base), *named, "--out", str(out)]
        return [*words, "--method", method, "--dtype", "bfloat16"]

    def rival(out: Path) -> Sequence[str]:
        config = arguments.scratch / f"mergekit-{method}.yaml"
        return command(arguments.mergekit, RIVALS[method], base, agents, out, config)

    try:
        return _figures(_runs(arguments, merge if who == "rammerge" else rival))
    except (RuntimeError, TimeoutError) as error:
        return {"problem": str(error).splitlines()[-1]}


def _runs(arguments: argparse.Namespace, words: Callable[[Path], Sequence[str]]) -> list[Measurement]:
    """Run once; and if that was quick, again without counting it, because it compiled and hashed."""
    first = repeat(words, 1, arguments.scratch, cold=False, limit=arguments.limit)
    return first if first[0].seconds > arguments.slow else repeat(words, _RUNS, arguments.scratch, cold=False)


def _figures(measured: Sequence[Measurement]) -> Row:
    found = median(measured)
    return {"seconds": found.seconds, "cpu": found.cpu_seconds, "peak": found.peak, "runs": len(measured)}


def _copies(arguments: argparse.Namespace) -> float:
    """Return how long the plain copies take: the limit that the machine sets."""
    models = [shlex.quote(str(model)) for model in _models(arguments)]
    script = f"cat {' '.join(f'{model}/*.safetensors' for model in models)} > /dev/null; cp -r {models[0]} $0"
    return median(repeat(lambda out: ["sh", "-c", script, str(out)], _RUNS, arguments.scratch, cold=False)).seconds


def _models(arguments: argparse.Namespace) -> list[Path]:
    names = ["base", *(f"agent{at}" for at in range(arguments.agents))]
    return [arguments.scratch / arguments.size / name for name in names]


def _file(arguments: argparse.Namespace) -> Path:
    path: Path = arguments.scratch / "methods.jsonl"
    return path


def _read(arguments: argparse.Namespace) -> dict[tuple[str, str], Row]:
    """Return the rows of this size that an earlier call measured."""
    lines = _file(arguments).read_text(encoding="utf-8").splitlines() if _file(arguments).exists() else []
    rows = [row for row in map(json.loads, lines) if row["size"] == arguments.size]
    return {(row["who"], row["method"]): row for row in rows}


def _table(arguments: argparse.Namespace, rows: Mapping[tuple[str, str], Row]) -> str:
    copies = [row["copies"] for row in rows.values()]
    head = ["method", "seconds", "of the plain copies", "processor seconds", "peak memory", "mergekit", "its peak", ""]
    lines = [
        f"{arguments.size}, {arguments.agents} agents, bfloat16, warm page cache, {os.cpu_count()} processors "
        f"({platform.machine()}). The plain copies took {min(copies):.2f} to {max(copies):.2f} s.",
        "",
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
    ]
    lines += ["| " + " | ".join(_cells(rows, name)) + " |" for who, name in _order(arguments) if who == "rammerge"]
    return "\n".join(lines) + "\n"


def _cells(rows: Mapping[tuple[str, str], Row], method: str) -> list[str]:
    own, other = rows.get(("rammerge", method), {}), rows.get(("mergekit", method), {})
    cells = [f"`{method}`", own.get("problem", "") if own else "not measured", "", "", ""]
    if "seconds" in own:
        ratio = f"{own['seconds'] / own['copies']:.1f}x"
        cells[1:] = [f"{own['seconds']:.2f} s", ratio, f"{own['cpu']:.1f} s", _mib(own)]
    beside = [other.get("problem", ""), "", ""]
    if "seconds" in other:
        beside = [f"`{RIVALS[method].name}` {other['seconds']:.1f} s", _mib(other), ""]
        if "seconds" in own:
            beside[2] = f"{other['seconds'] / own['seconds']:.1f}x faster"
    return [*cells, *beside]


def _mib(row: Row) -> str:
    return f"{row['peak'] / 2**20:.0f} MiB"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, required=True, help="directory for models, rows and outputs")
    parser.add_argument("--size", default="0.5B")
    parser.add_argument("--agents", type=int, default=3)
    parser.add_argument("--mergekit", type=Path, help="the interpreter of mergekit's environment")
    parser.add_argument("--minutes", type=float, default=15.0, help="after which no row begins")
    parser.add_argument("--limit", type=float, default=200.0, help="seconds after which a row is given up")
    parser.add_argument("--slow", type=float, default=20.0, help="seconds from which one run is enough")
    parser.add_argument("--only", nargs="+", default=[], choices=list(METHODS), metavar="METHOD")
    return parser


if __name__ == "__main__":
    main()
