"""The schedule's world: tiny models and suites, two servers, and what a run of the schedule leaves in its home."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import patch

import yaml

from benchmarks.soak.commands import Command, start_forking
from benchmarks.soak.machine import Disk, Kept
from benchmarks.soak.nights import AGENTS, SEEDS, SUITES, Night
from flows.servers.local import mlflow_server, prefect_server
from rammerge.system.servers import LOOPBACK, Server, free_port
from tasks.runtime.environment import activate, quiet
from tests.evaluation.made import write_model, write_suite
from tests.fixtures.models import save_agent


class Schedule:
    """What a schedule runs over.

    Attributes:
        home: RAMMERGE_HOME.
        disk: where everything is.
        mlflow: the tracking server.
        prefect: the Prefect server.
    """

    def __init__(self, disk: Disk, logs: Path, mlflow: Kept, prefect: Kept) -> None:
        """Take over what runs; what commands print goes to `logs`."""
        self.root, self.home, self.disk, self._logs = disk.path, disk.path / "home", disk, logs
        self.mlflow, self.prefect = mlflow, prefect

    def write(self, night: Night, name: str) -> Path:
        """Write the recipe of a night, under a name, and return its path."""
        recipe = self.root / f"{name}.yaml"
        recipe.write_text(yaml.safe_dump({"name": name, "base": "base", **night.recipe}))
        return recipe

    def start(self, *arguments: str) -> Command:
        """Start a command."""
        self._logs.mkdir(exist_ok=True)
        return Command(arguments, self._logs / f"{len(list(self._logs.iterdir())):05}.log")

    def sizes(self) -> dict[str, int]:
        """Return bytes: of the store without what versions share, of the home, and of the servers' memory."""
        files = [path.lstat() for path in (self.home / "store").rglob("*") if path.is_file()]
        everything = {status.st_ino: status.st_size for path in self.home.rglob("*") if (status := path.lstat())}
        return {
            "store": sum(status.st_size for status in files if status.st_nlink == 1),
            "home": sum(everything.values()),
            "mlflow": self.mlflow.memory,
            "prefect": self.prefect.memory,
        }


@contextmanager
def schedule(scratch: Path, size: int) -> Iterator[Schedule]:
    """Yield the schedule of `scratch`, with both servers running; go on where an earlier one ended."""
    with ExitStack() as stack:
        disk = Disk(scratch, size)
        stack.callback(disk.keep)
        home = disk.path / "home"
        database = f"sqlite:///{home / 'mlflow' / 'mlflow.db'}"
        settings = {"RAMMERGE_HOME": str(home), "PREFECT_HOME": str(home / "prefect"), "HF_HUB_OFFLINE": "1"}
        settings |= {"OMP_WAIT_POLICY": "PASSIVE", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
        settings |= {"PYTHONPATH": os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])}
        stack.enter_context(patch.dict(os.environ, settings | {"MLFLOW_TRACKING_URI": database}))
        activate()
        quiet()  # read by Prefect when it is imported
        _make_models(disk.path)
        ports = free_port(), free_port()
        prefect = Kept(partial(prefect_server, port=ports[0], dashboard=False))
        stack.callback(prefect.stop)
        mlflow = Kept(partial(served_mlflow, ports[1], database))
        stack.callback(mlflow.stop)
        os.environ["PREFECT_API_URL"] = f"http://{LOOPBACK}:{ports[0]}/api"
        os.environ["MLFLOW_TRACKING_URI"] = f"http://{LOOPBACK}:{ports[1]}"
        start_forking()
        yield Schedule(disk, scratch / "logs", mlflow, prefect)


@contextmanager
def served_mlflow(port: int, database: str) -> Iterator[Server]:
    """While the context lasts, serve MLflow over `database`, wherever the environment looks for records."""
    with patch.dict(os.environ, {"MLFLOW_TRACKING_URI": database}):
        running = mlflow_server(port=port)
        server = running.__enter__()
    try:
        yield server
    finally:
        running.__exit__(None, None, None)


def _make_models(root: Path) -> None:
    if (root / "base").is_dir():
        return
    base = write_model(root / "base")
    for number, agent in enumerate(AGENTS, start=1):
        for seed in range(SEEDS):
            save_agent(base, root / f"{agent}-{seed}", density=0.3, seed=10 * number + seed)
    for suite in SUITES:
        write_suite(root / suite, sizes=(6, 10))
