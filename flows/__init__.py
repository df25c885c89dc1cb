"""The pipeline from Python, and the flows that Prefect deploys.

`from flows import merge_and_evaluate` gives a function that does what `rammerge run` does. The flow itself is in the
module of the same name: `from flows.merge_and_evaluate import merge_and_evaluate`.
"""

import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from rammerge.system.neighbours import hidden_neighbour

if TYPE_CHECKING:
    from flows.run.outcome import Outcome

if _problem := hidden_neighbour():
    raise ImportError(_problem)


def merge_and_evaluate(recipe: str | Path, *, runner: str | None = None) -> "Outcome":
    """Merge, evaluate, gate, register and promote, as `rammerge run RECIPE` does.

    What was done before, by whichever run, is not done again. Steps are shown on stderr while they run. A Prefect API
    is started, and stopped, where none is configured.

    Args:
        recipe: the YAML file.
        runner: what runs the steps instead of what the recipe says; see `compute.runner`. Dask starts processes that
            import the caller's main module, so a script that names it calls this under `if __name__ == "__main__":`.

    Returns:
        The outcome, also when a gate refused the selected variant. It prints as the command does, a notebook shows it
        as tables, and `outcome.leaderboard` has every score.

    Raises:
        InputError: bad input, found before any work.
        RammergeError: a step failed after its retries.
    """
    from flows.cli.display import steps_display
    from flows.running import run

    return run(Path(recipe), steps_display, runner)


class _Face(ModuleType):
    """This package. Importing its module `merge_and_evaluate` would put the module in the place of the function."""

    def __setattr__(self, name: str, value: object) -> None:
        if name != "merge_and_evaluate":
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Face
