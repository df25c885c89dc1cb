"""What the steps that do a part of some work leave for the step that puts the parts together."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rammerge.publishing.staging import add_part, staging_directory
from rammerge.system.atomic import write_json
from tasks.runtime.result import Result

_COUNTED = "counted.json"


class Part(Result):
    """A part's shards of a merge, or only its statistics: by variant a staging directory of the library in `path`."""


class Counted(Result):
    """What some tensors contribute to statistics of the whole model."""


def collect(parts: Sequence[Part], out: Path, variant: str) -> None:
    """Have the merge of a variant into `out` take up what is in parts that are still there."""
    for part in parts:
        add_part(staging_directory(out), staging_directory(part.path / variant))


def write_counted(out: Path, content: Any) -> None:
    """Write what a step counted into its output."""
    write_json(out / _COUNTED, content)


def read_counted(rounds: Sequence[Sequence[Counted]]) -> list[list[Any]]:
    """Return what was counted in each round by each part; nothing if one of them is no longer there."""
    try:
        return [[json.loads((each.path / _COUNTED).read_text(encoding="utf-8")) for each in parts] for parts in rounds]
    except FileNotFoundError:
        return []
