"""Compare the cost model with merges on this machine, and print what it says of large models and many machines.

    python -m benchmarks.scale --scratch DIR [--size 0.5B] [--cold]

Tables are in docs/scale.md.
"""

import argparse
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.models import make
from rammerge.checkpoints.family import Family
from rammerge.costs.calibration import calibrated
from rammerge.costs.model import Merges, Site, Speeds, Stage, stages, total
from rammerge.engine.options import MergeOptions
from rammerge.engine.passes.measuring import measure_overlap, overlap_passes
from rammerge.engine.passes.parts import join_parts, measure_part, rounds, share
from rammerge.engine.passes.statistics import Statistics
from rammerge.publishing.making import merge_family
from rammerge.rules import resolve

# The reads of all inputs for statistics by method, besides the count of overlap.
METHODS = {"ram": 0, "multi_slerp": 1, "ties": 1}
SIZES = {"70 B": 70e9, "400 B": 400e9, "1 T": 1e12}
DISKS = {"0.5 GB/s": 0.5e9, "2 GB/s": 2e9, "7 GB/s": 7e9}
NETWORKS = {"10 Gb/s": 1.25e9, "100 Gb/s": 12.5e9}
WORKERS = (1, 4, 16, 64)
# Of a machine with more processors than the one that was measured.
CORES = 16


@dataclass(frozen=True)
class Measured:
    """What a piece of work took: seconds, processor seconds, and bytes by system calls."""

    seconds: float
    processor: float
    read: int
    written: int


def measure(work: Callable[[], object], *, cold: bool) -> Measured:
    """Do a piece of work twice, and return what it took the second time: functions are compiled by then."""
    work()
    os.sync()
    if cold:
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
    before, began, processor = _io(), time.perf_counter(), time.process_time()
    work()
    seconds, spent, after = time.perf_counter() - began, time.process_time() - processor, _io()
    return Measured(seconds, spent, after["rchar"] - before["rchar"], after["wchar"] - before["wchar"])


def _io() -> dict[str, int]:
    lines = Path("/proc/self/io").read_text().splitlines()
    return {name: int(value) for name, value in (line.split(": ") for line in lines)}


def compare(scratch: Path, size: str, *, cold: bool) -> Iterator[str]:
    """Yield rows: what the model expects of stages, and what they took."""
    make(scratch, size, 3)
    root = scratch / size
    family = Family.open(root / "base", {f"agent{at}": root / f"agent{at}" for at in range(3)})
    options, site = MergeOptions("bfloat16", compile="always"), Site(calibrated())
    list(family.digests)
    yield "| stage | read, GB | expected | written, GB | expected | processor, s | expected | wall, s | expected |"
    yield "|---|---|---|---|---|---|---|---|---|"
    counted, out = partial(measure_overlap, family, options=options), scratch / "out"
    yield _row("count overlap", measure(counted, cold=cold), _stages(family, site, "ram", ["count overlap"]), site)
    for method, statistics in METHODS.items():
        merged = partial(merge_family, family, resolve(method), out, options, force=True)
        expected = _stages(family, site, method, ["statistics", "merge"] if statistics else ["merge"])
        yield _row(f"merge by `{method}`", measure(merged, cold=cold), expected, site)
    shutil.rmtree(out, ignore_errors=True)


def divided(scratch: Path, size: str) -> Iterator[str]:
    """Yield rows: processor seconds of each round of counting in one process and in two parts, and a part's JSON."""
    root = scratch / size
    family = Family.open(root / "base", {f"agent{at}": root / f"agent{at}" for at in range(3)})
    options, none = MergeOptions(compile="always"), Statistics()
    yield "| counted | round | one process, s | two parts, s | a part's result, KB |"
    yield "|---|---|---|---|---|"
    for called, passes in {"overlap": overlap_passes(), "`ties`": resolve("ties").bind_to(family).passes}.items():
        found: list[list[Any]] = []
        for turn in range(rounds(passes, none)):
            count = partial(measure_part, family, passes, join_parts(passes, none, found), options=options)
            whole = measure(partial(count, tensors=family.floats), cold=False).processor
            halves = [partial(count, tensors=share(family, number, 2)) for number in (1, 2)]
            spent = sum(measure(half, cold=False).processor for half in halves)
            found.append([half() for half in halves])
            size_of = max(len(json.dumps(each)) for each in found[-1])
            yield f"| {called} | {turn + 1} | {whole:.2f} | {spent:.2f} | {size_of / 1000:.0f} |"


def _stages(family: Family, site: Site, method: str, names: Sequence[str]) -> list[Stage]:
    merges = Merges(family.elements, len(family.members), [method], METHODS[method])
    return [stage for stage in stages(merges, site) if stage.name in names]


def _row(called: str, took: Measured, expected: Sequence[Stage], site: Site) -> str:
    pairs = [
        (took.read / 1e9, sum(stage.read for stage in expected) / 1e9),
        (took.written / 1e9, sum(stage.written for stage in expected) / 1e9),
        (took.processor, sum(stage.processor for stage in expected)),
        (took.seconds, sum(stage.seconds(site) for stage in expected)),
    ]
    return f"| {called} | " + " | ".join(f"{value:.2f}" for pair in pairs for value in pair) + " |"


def machines(speeds: Speeds) -> Iterator[str]:
    """Yield tables of large models on machines with disks, links and processors as given."""
    for agents in (3, 100):
        yield f"\n`ram` of {agents} agents, machines with {CORES} processors; minutes without hashing the inputs:\n"
        columns = ["elements", "inputs", "output", "disk or link of each", *(f"{count} workers" for count in WORKERS)]
        yield f"| {' | '.join(columns)} |"
        yield "|" + "---|" * len(columns)
        for called, elements in SIZES.items():
            for name, site in sites(speeds).items():
                cells = []
                for workers in WORKERS:
                    merges = Merges(int(elements), agents, ["ram"], parts=workers, hashed=True)
                    there = replace(site, workers=workers)
                    cells.append(f"{total(stages(merges, there), there) / 60:,.0f}")
                sizes = f"{merges.inputs / 1e12:.2f} TB | {merges.outputs / 1e12:.2f} TB"
                yield f"| {called} | {sizes} | {name} | {' | '.join(cells)} |"


def sites(speeds: Speeds) -> dict[str, Site]:
    """Return one machine with each disk and each network."""
    many = replace(speeds, cores=CORES)
    found = {name: Site(replace(many, read=rate, write=rate)) for name, rate in DISKS.items()}
    fast = replace(many, read=1e12, write=1e12)  # the file system behind the network is not what limits
    return found | {name: Site(fast, network=rate) for name, rate in NETWORKS.items()}


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--size", default="0.5B")
    parser.add_argument("--cold", action="store_true", help="drop the page cache before each piece of work, as root")
    given = parser.parse_args()
    print(calibrated())
    measured = (*compare(given.scratch, given.size, cold=given.cold), "", *divided(given.scratch, given.size))
    for line in (*measured, *machines(calibrated())):
        print(line, flush=True)


if __name__ == "__main__":
    main()
