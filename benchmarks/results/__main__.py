"""Which merge wins: `python -m benchmarks.results --zoo DIR --scratch DIR --jobs 2` makes docs/results.md.

`--zoo` holds the families that `python -m examples.zoo.families` trained. Every family is merged by one recipe and
evaluated by this project's own command. A run that was killed goes on: what is complete in the scratch folder is not
run again, and each run's log and recipe are there. `--only zoo-2-adamw-bf16` makes the rows of one family again.
`--render` makes the page, its figures, the README's sentences and the advisor's data from docs/results.json, and runs
nothing.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.results.advising import write_advisor
from benchmarks.results.data import Run, read_runs, write_runs
from benchmarks.results.families import families
from benchmarks.results.page import write_page
from benchmarks.results.running import run_all
from benchmarks.results.verdict import write_readme

DOCS = Path("docs")


def main() -> None:
    """Run what is missing, and write data, page and figures."""
    arguments = _parser().parse_args()
    data = DOCS / "results.json"
    runs = {run.name: run for run in read_runs(data)}
    if not arguments.render:
        runs |= {run.name: run for run in _new(arguments)}
        write_runs(data, list(runs.values()))
    if not runs:
        sys.exit(f"{data} has no runs; train families with examples.zoo.families, and give their folder as --zoo")
    found = sorted(runs.values(), key=lambda run: run.name)
    write_advisor(found)
    write_readme(Path("README.md"), write_page(found, DOCS))


def _new(arguments: argparse.Namespace) -> list[Run]:
    chosen = [family for family in families(arguments.zoo) if family.name in (arguments.only or [family.name])]
    if missing := sorted({*(arguments.only or [])} - {family.name for family in chosen}):
        sys.exit(f"not all checkpoints of {', '.join(missing)} are in {arguments.zoo}; train them first")
    return list(run_all(chosen, arguments.scratch, arguments.jobs, arguments.limit))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, default=Path("zoo"), help="folder of the zoo's families")
    parser.add_argument("--scratch", type=Path, default=Path("results"), help="recipes, logs and what is complete")
    parser.add_argument("--only", nargs="+", metavar="FAMILY", help="families to run; default: all that are there")
    parser.add_argument("--jobs", type=int, default=1, help="families that are run at once")
    parser.add_argument("--limit", type=int, help="items of each suite and split; default: all")
    parser.add_argument("--render", action="store_true", help="run nothing")
    return parser


if __name__ == "__main__":
    main()
