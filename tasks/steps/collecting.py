"""What the steps of a merge in parts (tasks.steps.parts) leave for the step that makes a model of it."""

from collections.abc import Sequence
from pathlib import Path

from rammerge.publishing.staging import add_part, staging_directory
from tasks.runtime.result import Result


class Part(Result):
    """The shards of a part, or only the statistics: by variant a staging directory of the library in `path`."""


def collect(parts: Sequence[Part], out: Path, variant: str) -> None:
    """Have the merge of a variant into `out` take up what is in parts that are still there."""
    for part in parts:
        add_part(staging_directory(out), staging_directory(part.path / variant))
