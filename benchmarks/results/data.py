"""What a run came to, as small data: `docs/results.json` holds all runs, and everything on the page is made of them."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rammerge.overlap.advisor import Features
from rammerge.system.atomic import write_text


@dataclass(frozen=True)
class Model:
    """A model's scores.

    Attributes:
        kind: base, agent or variant.
        method: of a variant, with the parameters that were set.
        validation: average over the suites.
        test: suite -> the scores of the items, each 0 or 1, in the suite's order.
    """

    name: str
    kind: str
    method: str
    setting: str
    validation: float
    test: dict[str, NDArray[np.float64]]

    @property
    def average(self) -> float:
        """The average over the suites on test, in percent."""
        return 100 * float(np.mean([scores.mean() for scores in self.test.values()]))


@dataclass(frozen=True)
class Run:
    """A family's run: its agents, its models, and what it took."""

    name: str
    group: str
    seed: int
    features: Features
    densities: dict[str, float]
    models: tuple[Model, ...]
    seconds: float

    @property
    def variants(self) -> dict[str, Model]:
        """The merges, by name."""
        return {model.name: model for model in self.models if model.kind == "variant"}

    def model(self, name: str) -> Model:
        """Return a model by its name."""
        return next(model for model in self.models if model.name == name)

    def specialists(self) -> float:
        """Return the average of each agent on the suite that it is best on, in percent."""
        agents = [model for model in self.models if model.kind == "agent"]
        return 100 * float(np.mean([max(agent.test[suite].mean() for agent in agents) for suite in agents[0].test]))

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object, with the scores of a suite as hexadecimal digits of four items each."""
        models = [{**asdict(model), "test": _packed(model.test)} for model in self.models]
        return {**asdict(self), "models": models}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Run":
        """Return what `to_json` wrote."""
        models = tuple(Model(**{**model, "test": _unpacked(model["test"])}) for model in content["models"])
        return cls(**{**content, "models": models, "features": Features(**content["features"])})


def write_runs(file: Path, runs: Sequence[Run]) -> None:
    """Write runs, each on a line of its own, sorted by name."""
    lines = [json.dumps(run.to_json(), sort_keys=True) for run in sorted(runs, key=lambda run: run.name)]
    write_text(file, "[\n" + ",\n".join(lines) + "\n]\n")


def read_runs(file: Path) -> list[Run]:
    """Return the runs of a file; none if there is no such file."""
    return [Run.from_json(each) for each in json.loads(file.read_text("utf-8"))] if file.is_file() else []


def _packed(test: dict[str, NDArray[np.float64]]) -> dict[str, list[Any]]:
    return {suite: [len(scores), np.packbits(scores > 0.5).tobytes().hex()] for suite, scores in test.items()}


def _unpacked(test: dict[str, list[Any]]) -> dict[str, NDArray[np.float64]]:
    return {
        suite: np.unpackbits(np.frombuffer(bytes.fromhex(packed), np.uint8), count=count).astype(np.float64)
        for suite, (count, packed) in test.items()
    }
