"""What past runs came to, in numbers: kept below the home for metrics and trends, a file a recipe."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from rammerge.system.atomic import write_text
from rammerge.system.home import home
from rammerge.system.locks import locked

End = Literal["passed", "refused", "not evaluated", "failed"]

# Of each recipe; a year of nightly runs and more.
_MOST = 500


class Score(BaseModel):
    """The average over the suites on the test split, a share, with the limits of its interval."""

    model_config = ConfigDict(frozen=True)

    value: float
    low: float
    high: float


class Past(BaseModel):
    """A run that has ended.

    Attributes:
        recipe: its name.
        number: of the run among those of its recipe, from 1; `keep` gives it.
        run: its id in Prefect.
        started: in seconds since 1970.
        seconds: how long it took.
        end: what came of it.
        steps: number of steps, by kind and by how they ended.
        step_seconds: how long the steps of each kind took together, of those that were done and not cached.
        merged_bytes: size of the weights that were written.
        tokens: of the prompts and answers of the models that were evaluated.
        evaluated_seconds: how long it took to get these answers.
        gates: whether each rule passed; a rule that is there twice passes if both do.
        model, version: the registered model, and the challenger's version.
        challenger, champion: their scores; None if they have none.
        champion_version: who serves after the run.
    """

    model_config = ConfigDict(frozen=True)

    recipe: str
    number: int = 0
    run: str
    started: float
    seconds: float
    end: End
    steps: dict[str, dict[str, int]]
    step_seconds: dict[str, float]
    merged_bytes: int = 0
    tokens: int = 0
    evaluated_seconds: float = 0.0
    gates: dict[str, bool] = {}
    model: str | None = None
    version: int | None = None
    challenger: Score | None = None
    champion: Score | None = None
    champion_version: int | None = None

    def keep(self) -> "Past":
        """Remember this run, and return it with its number."""
        file = _directory() / f"{self.recipe}.jsonl"
        with locked(file.with_suffix(".lock")):
            runs = list(_read(file))
            numbered = self.model_copy(update={"number": runs[-1].number + 1 if runs else 1})
            kept = [*runs, numbered][-_MOST:]
            write_text(file, "".join(f"{run.model_dump_json()}\n" for run in kept))
        return numbered


def past_runs(recipe: str) -> list[Past]:
    """Return the runs of a recipe that have ended, the oldest first."""
    return list(_read(_directory() / f"{recipe}.jsonl"))


def recipes() -> list[str]:
    """Return the names of the recipes that have run."""
    return sorted(file.stem for file in _directory().glob("*.jsonl"))


def _read(file: Path) -> Iterator[Past]:
    """Yield what is in a file; lines of a different release may say something else."""
    with suppress(FileNotFoundError):
        for line in file.read_text("utf-8").splitlines():
            with suppress(ValidationError, json.JSONDecodeError):
                yield Past.model_validate_json(line)


def _directory() -> Path:
    return home() / "runs" / "past"
