"""The families that are merged: the zoo over seeds and regimes, and the real language model if it is there."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.results.entries import merges
from examples.zoo import families as zoo
from examples.zoo.domains import DOMAINS


@dataclass(frozen=True)
class Family:
    """A base and its agents, and the suites that they are judged on.

    Attributes:
        name: of the recipe, the run and the row.
        group: what is averaged over seeds: the regime, or the name of the model.
        seed: of the training.
        base: its checkpoint.
        agents: name -> checkpoint.
        suites: names, or directories.
        dtype: of the merged models and of the evaluation.
    """

    name: str
    group: str
    seed: int
    base: Path
    agents: dict[str, Path]
    suites: tuple[str, ...]
    dtype: str = "float32"

    def recipe(self, limit: int | None) -> dict[str, Any]:
        """Return the recipe: everything is compared, nothing is promoted."""
        return {
            "name": self.name,
            "base": str(self.base.resolve()),
            "agents": {name: str(folder.resolve()) for name, folder in self.agents.items()},
            "merges": merges(),
            "output": {"dtype": self.dtype},
            "evaluation": {
                "suites": list(self.suites),
                "dtype": self.dtype,
                "batch_size": 100,
                **({"limit": limit} if limit else {}),
            },
            "registry": {"model": f"rammerge-{self.name}", "promote": False},
        }


def families(zoo_folder: Path) -> list[Family]:
    """Return the families that are complete."""
    return [
        Family(
            each.name,
            each.regime,
            each.seed,
            each.base,
            {domain: each.agent(domain) for domain in DOMAINS},
            tuple(f"zoo_{domain}" for domain in DOMAINS),
        )
        for each in zoo.families(zoo_folder)
        if zoo.missing([each]) == ([], [])
    ]
