"""Measure how three agents overlap, and merge them: `python examples/python/merge.py OUT`, in a checkout."""

import sys
from pathlib import Path

import rammerge

ZOO = Path(__file__).parent.parent / "zoo" / "checkpoints"
AGENTS = {name: ZOO / name for name in ("tool", "code", "memory")}


def main(out: str) -> None:
    """Merge the bundled zoo into the directory `out`."""
    overlap = rammerge.measure_overlap(base=ZOO / "base", agents=AGENTS)
    print(overlap)
    report = rammerge.merge(
        base=ZOO / "base",
        agents=AGENTS,
        method="ram_plus",
        preset="paper",
        r=0.2,
        out=out,
        overlap=overlap,
    )
    print(report)
    rammerge.verify(out)


if __name__ == "__main__":
    main(sys.argv[1])
