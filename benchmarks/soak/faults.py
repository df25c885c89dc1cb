"""A run of the schedule, and what goes wrong while it goes on."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from benchmarks.soak.commands import Command
from benchmarks.soak.machine import children_of
from benchmarks.soak.nights import Fault, Night
from benchmarks.soak.world import Schedule

_PATIENCE_SECONDS = 900.0


def run_with(schedule: Schedule, night: Night, recipe: Path, fault: Fault, usual: float) -> list[Command]:
    """Run a recipe while something goes wrong, and return the commands that ran, the run first.

    Args:
        schedule: the world.
        night: what the night brings.
        recipe: the night's recipe.
        fault: what goes wrong.
        usual: seconds that a run usually takes.

    Raises:
        TimeoutError: a command hung, and was killed.
    """
    commands = [schedule.start("run", str(recipe))]
    try:
        if not commands[0].ended(night.moment * usual):
            commands += _strike(schedule, night, recipe, fault, commands[0])
        wait_for(commands)
    finally:
        schedule.disk.make_room()
    return commands


def wait_for(commands: list[Command]) -> None:
    """Wait until all have ended.

    Raises:
        TimeoutError: one hung, and was killed.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    for command in commands:
        if not command.ended(max(0.0, deadline - time.monotonic())):
            command.send(signal.SIGKILL)
            command.ended()
            raise TimeoutError(f"a command hangs; see {command.log}")


def _strike(schedule: Schedule, night: Night, recipe: Path, fault: Fault, run: Command) -> list[Command]:
    """Do the harm, and return the commands that this started."""
    match fault:
        case "kill -9":
            run.send(signal.SIGKILL)
        case "SIGTERM":
            run.send(signal.SIGTERM)
        case "model killed":
            for pid in children_of(run.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        case "disk full":
            schedule.disk.fill(night.room)
        case "MLflow killed":
            schedule.mlflow.kill()
            schedule.mlflow.start()
        case "Prefect killed":
            schedule.prefect.kill()
            schedule.prefect.start()
        case "two at once":
            return [schedule.start("run", str(recipe))]
        case "prune meanwhile":
            return [schedule.start("prune", "--unused-days", "0")]
        case "none":
            pass
    return []
