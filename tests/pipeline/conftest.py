"""A world small enough to run the whole pipeline in: a tiny base, agents, suites, and a recipe over them."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

# Read by Prefect when it is first imported: results of one test session must not serve another.
os.environ.setdefault("RAMMERGE_BACKOFF_SECONDS", "0.05")


class World:
    """Paths of a tiny world, and the recipe over it."""

    def __init__(self, root: Path) -> None:
        from tests.evaluation.made import write_model, write_suite
        from tests.fixtures.models import save_agent

        self.root = root
        self.home = root / "home"
        self.base = write_model(root / "base")
        self.agents = {
            name: save_agent(self.base, root / name, density=0.3, seed=seed)
            for seed, name in enumerate(("tool", "code"), start=1)
        }
        write_suite(root / "words", sizes=(6, 10))
        self.recipe = root / "recipe.yaml"
        self.write()

    def write(self, **changes: Any) -> Path:
        """Write the recipe with some keys changed, and return its path."""
        content: dict[str, Any] = {
            "name": "tiny",
            "base": "base",
            "agents": {name: name for name in self.agents},
            "merges": ["average", "ram", {"method": "ram_plus", "preset": "paper"}],
            "evaluation": {"suites": ["./words"], "batch_size": 8},
            "gates": [{"rule": "min_score", "value": 0.0}],
            **changes,
        }
        self.recipe.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
        return self.recipe

    def environment(self) -> dict[str, str]:
        """Return the environment in which everything stays below this world's home."""
        return {
            "RAMMERGE_HOME": str(self.home),
            "PREFECT_HOME": str(self.home / "prefect"),
            "PREFECT_LOCAL_STORAGE_PATH": str(self.home / "prefect" / "storage"),
            "MLFLOW_TRACKING_URI": f"sqlite:///{self.home / 'mlflow' / 'mlflow.db'}",
            "RAMMERGE_BACKOFF_SECONDS": "0.05",
        }


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One temporary Prefect API for the session; it isolates the database but not results, so those get a place too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_LOCAL_STORAGE_PATH", str(tmp_path_factory.mktemp("prefect-results")))
        patch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
        patch.setenv("DO_NOT_TRACK", "1")
        patch.setenv("PREFECT_LOGGING_LEVEL", "ERROR")
        from prefect.testing.utilities import prefect_test_harness

        with prefect_test_harness(server_startup_timeout=90):
            yield
