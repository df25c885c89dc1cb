"""Calls of functions on the worlds of an item. The functions are looked up by name, and nothing is evaluated."""

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.suites.bundled.bfcl_multi_turn.worlds import WORLDS

# A function, its arguments by position, and those by name.
Call = tuple[str, Sequence[Any], Mapping[str, Any]]


class Worlds:
    """The worlds of one item."""

    def __init__(self, initial: str) -> None:
        """Make the worlds from their first states by name, in JSON: the order of files and tickets counts."""
        self._worlds = {name: WORLDS[name](state) for name, state in json.loads(initial).items()}

    def run(self, calls: Sequence[Call]) -> list[str]:
        """Return what each call tells; a call that fails tells why."""
        return [self._run(*call) for call in calls]

    def state(self) -> dict[str, dict[str, Any]]:
        """Return what counts of the worlds."""
        return {
            name: {key: value for key, value in vars(world).items() if not key.startswith("_")}
            for name, world in self._worlds.items()
        }

    def _run(self, name: str, positional: Sequence[Any], named: Mapping[str, Any]) -> str:
        world = next((world for world in self._worlds.values() if hasattr(type(world), name)), None)
        if world is None or name.startswith("_"):
            return f"Error during execution: name '{name}' is not defined"
        try:
            # The world keeps what it is given, and may change it.
            positional, named = copy.deepcopy((positional, named))
            return _shown(getattr(world, name)(*positional, **named))
        except Exception as error:  # a model may pass anything
            return f"Error during execution: {error}"


def _shown(told: Any) -> str:
    if not isinstance(told, dict):
        return str(told)
    try:
        return json.dumps(told)
    except (TypeError, ValueError):
        return str(told)
