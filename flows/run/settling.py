"""Wait for steps, and fail with the reason of the first that failed rather than with that of one that waited for it."""

from collections.abc import Mapping
from typing import Any, TypeVar

from prefect.futures import PrefectFuture

R = TypeVar("R")


def settle(*futures: PrefectFuture[Any]) -> None:
    """Return once every step has ended well.

    Raises:
        The exception of the first step, in the order given, that failed by itself.
    """
    for future in futures:
        future.wait()
    unfinished = [future for future in futures if not future.state.is_completed()]
    for future in sorted(unfinished, key=lambda future: not future.state.is_failed()):
        future.result()


def results(futures: Mapping[str, PrefectFuture[R]]) -> dict[str, R]:
    """Return the results of steps that have ended well."""
    return {name: future.result() for name, future in futures.items()}
