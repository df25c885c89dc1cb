"""How this process imports MLflow."""

from functools import cache
from importlib import import_module

from rammerge.system.optional import without

_spared: set[str] = set()


def spare_tables() -> None:
    """Have MLflow be imported without pandas, which is a quarter of it, for a program that logs no tables.

    And without chardet, which guesses encodings, as another package does that is imported anyway. In a process of a
    user's own MLflow stays complete.
    """
    _spared.update(("pandas", "chardet"))


@cache
def import_mlflow() -> None:
    """Import MLflow, once a process."""
    with without(*_spared):
        import_module("mlflow")
