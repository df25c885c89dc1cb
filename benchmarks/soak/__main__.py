"""Run a schedule of tiny recipes back to back with faults, and check after each run that nothing was lost or doubled.

    python -m benchmarks.soak --runs 200 --seed 0 --scratch DIR [--minutes 25]

Each run is a process of its own, as a schedule starts it, and uses a Prefect and an MLflow server that go on. After a
run that a fault ended, the same recipe runs again without one, and has to come to its end. Every tenth run the store is
pruned. The same command goes on where it ended. DIR/runs.jsonl has a line for each run, DIR/soak.json the figures;
docs/faults.md says what is checked. The exit code is 1 if anything did not hold.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

from benchmarks.soak.commands import Command
from benchmarks.soak.faults import run_with, wait_for
from benchmarks.soak.figures import Run, figures, grown
from benchmarks.soak.invariants import Registry, broken, unfinished, unfounded
from benchmarks.soak.machine import nothing_left
from benchmarks.soak.nights import FAULTS, Fault, Night, night
from benchmarks.soak.world import Schedule, schedule

_NAME = "nightly"
_DISK = 512 * 2**20
# What a prune leaves of the store: this, and what the last run leads to.
_PRUNED, _LAST_RUN = 6_000_000, 1_000_000
# A prune removes the records of runs older than this: seven minutes.
_RECORDS_DAYS = 0.005
_USUAL_SECONDS = 20.0
_REFUSED = "was refused by a gate"
_COMPLETED = ("done", "refused")


class Soak:
    """The runs so far, and what the registry said after the last one."""

    def __init__(self, schedule: Schedule, record: Path, seed: int) -> None:
        """Go on after the runs that `record` lists."""
        self._schedule, self._record, self._seed = schedule, record, seed
        lines = record.read_text("utf-8").splitlines() if record.exists() else []
        self.runs = [Run(**json.loads(line)) for line in lines]
        self._registry = self._read()

    def next(self) -> Run:
        """Let one more run happen: tonight's, or again the one that a fault ended."""
        last = self.runs[-1] if self.runs else None
        again = last is not None and last.again
        number = last.night if last and again else (last.night + 1 if last else 0)
        possible = tuple(it for it in FAULTS if it != "disk full" or self._schedule.disk.can_be_full)
        tonight = night(self._seed, number, faults=possible)
        run = self._run(tonight, number, "none" if again else tonight.fault)
        with self._record.open("a", encoding="utf-8") as file:
            file.write(json.dumps(run.__dict__) + "\n")
        self.runs.append(run)
        return run

    def _run(self, tonight: Night, number: int, fault: Fault) -> Run:
        """Run the night's recipe while `fault` strikes, and check what it left."""
        world, began = self._schedule, time.monotonic()
        recipe = world.write(tonight, _NAME)
        took = [run.seconds for run in self.runs[-10:] if run.fault == "none"]
        with nothing_left(world.home, (world.mlflow, world.prefect)) as left:
            commands = run_with(world, tonight, recipe, fault, statistics.median(took or [_USUAL_SECONDS]))
        seconds, ended, harmed = time.monotonic() - began, _ended(commands[0]), fault not in ("none", "two at once")
        problems = [f"the process {pid} was left behind" for pid in left]
        problems += [said for command in commands for said in _ill_said(command, harmed=harmed)]
        before = self._registry.runs.keys()
        problems += self._check(tonight, completed=ended in _COMPLETED)
        recorded = len(self._registry.runs.keys() - before) + (self.runs[-1].recorded if self.runs else 0)
        if len(self.runs) % 10 == 9:
            problems += self._prune()
        return Run(
            night=number,
            fault=fault,
            ended=ended,
            again=ended not in _COMPLETED and harmed,
            seconds=round(seconds, 2),
            said="" if ended in _COMPLETED else _last(commands[0]),
            problems=problems,
            versions=len(self._registry.versions),
            champion=self._registry.aliases.get("champion"),
            recorded=recorded,
            **world.sizes(),
        )

    def _check(self, tonight: Night, *, completed: bool) -> list[str]:
        home, before = self._schedule.home, self._registry
        now = self._registry = self._read()
        problems = list(broken(home, now, before, pruned=False))
        if completed:
            problems += unfounded(home, _NAME, now, before, tonight.margin)
            problems += [f"{now.open} runs are open in MLflow"] if now.open else []
            going_on = unfinished(home / "prefect" / "prefect.db")
            problems += [f"{going_on} runs go on in Prefect"] if going_on else []
        return problems

    def _prune(self) -> list[str]:
        asked = ("--unused-days", "1", "--size", f"{_PRUNED}B", "--versions", "6", "--records", f"{_RECORDS_DAYS}")
        command = self._schedule.start("prune", *asked)
        wait_for([command])
        problems = [] if command.code == 0 else [f"prune ended with {command.code}: {_last(command)}"]
        if self._schedule.sizes()["store"] > _PRUNED + _LAST_RUN:
            problems.append(f"the store has {self._schedule.sizes()['store']} bytes after a prune to {_PRUNED}")
        before, self._registry = self._registry, self._read()
        return problems + list(broken(self._schedule.home, self._registry, before, pruned=True))

    def _read(self) -> Registry:
        return Registry.read(self._schedule.home / "mlflow" / "mlflow.db", _NAME)


def _ended(command: Command) -> str:
    if command.code < 0:
        return f"killed by signal {-command.code}"
    if command.code == 1 and _REFUSED in command.said:
        return "refused"
    return {0: "done", 130: "interrupted", 143: "interrupted"}.get(command.code, f"failed with {command.code}")


def _ill_said(command: Command, *, harmed: bool) -> list[str]:
    """Return what is wrong with how a command ended, which nothing has `harmed`, and with what it printed."""
    words = ("Traceback (most recent call last)", "error: unexpected ")
    said = [f"printed {word!r}; see {command.log}" for word in words if word in command.said]
    return said if harmed or _ended(command) in _COMPLETED else [*said, f"{_ended(command)}: {_last(command)}"]


def _last(command: Command) -> str:
    return (command.said.strip().splitlines() or ["nothing"])[-1]


def main() -> int:
    """Run, print what happens and the figures, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    given = parser.parse_args()
    scratch, end = given.scratch.absolute(), time.monotonic() + 60 * given.minutes
    with schedule(scratch, _DISK) as world:
        soak = Soak(world, scratch / "runs.jsonl", given.seed)
        while len(soak.runs) < given.runs and time.monotonic() < end:
            run = soak.next()
            print(
                f"{len(soak.runs):4} night {run.night:3} {run.fault:<16} {run.ended:<12} {run.seconds:6.1f} s",
                flush=True,
            )
            for problem in run.problems:
                print(f"     {problem}", flush=True)
    summary = figures(soak.runs)
    summary["problems"] += grown(summary)
    (scratch / "soak.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(json.dumps(summary, indent=2))
    return 1 if summary["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
