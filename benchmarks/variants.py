"""Nine variants of one family, merged together into the directory OUT.

    python -m benchmarks.variants OUT BASE AGENT...

`python -m benchmarks.merge --variants` measures this beside plain copies.
"""

import sys
from pathlib import Path

from rammerge.checkpoints.family import Family
from rammerge.engine.options import MergeOptions
from rammerge.publishing.making import merge_together
from rammerge.rules import resolve

VARIANTS = {
    "average": resolve("average"),
    "ram": resolve("ram"),
    "ram_plus_soft": resolve("ram_plus_soft"),
    **{f"ram_plus-{r}": resolve("ram_plus", None, {"r": r}) for r in (0.1, 0.2, 0.5)},
    **{f"task_arithmetic-{scale}": resolve("task_arithmetic", None, {"scale": scale}) for scale in (0.5, 0.75, 1.0)},
}


def main(out: Path, base: Path, agents: list[Path]) -> None:
    """Merge, and print how long each stage took."""
    out.mkdir()
    family = Family.open(base, {agent.name: agent for agent in agents})
    wanted = {out / name: method for name, method in VARIANTS.items()}
    reports = list(merge_together(family, wanted, MergeOptions("bfloat16")))
    print(reports[-1].where(), *reports[-1].warnings, sep="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), [Path(agent) for agent in sys.argv[3:]])
