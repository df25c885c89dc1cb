"""Wait for steps, and fail with the error of the first step that failed by itself."""

from collections.abc import Mapping
from typing import Any, TypeVar

from prefect.futures import PrefectFuture

R = TypeVar("R")


def settle(*futures: PrefectFuture[Any]) -> None:
    """Wait until every step has succeeded.

    Raises:
        The exception of the first step, in the order given, that failed by itself.
    """
    for future in futures:
        future.wait()
    unfinished = [future for future in futures if not future.state.is_completed()]
    for future in sorted(unfinished, key=lambda future: not future.state.is_failed()):
        future.result()


def results(futures: Mapping[str, PrefectFuture[R]]) -> dict[str, R]:
    """Return the results of successful steps."""
    return {name: future.result() for name, future in futures.items()}
