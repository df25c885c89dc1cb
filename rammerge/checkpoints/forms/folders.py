"""Finding the weights in a trainer's directory: at its top, or some levels below in the newest step."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rammerge.checkpoints.forms.candidates import find_forms
from rammerge.checkpoints.forms.form import Form
from rammerge.errors import InputError
from rammerge.system.reading import list_directory

# experiment / global_step_20 / policy / weights
_LEVELS = 4
_MOST_DIRECTORIES = 5000
_MOST_LISTED = 8
# Models that a trainer keeps beside the agent, and directories without models.
_ASIDE = re.compile(
    r"\..*|critic.*|ref(erence)?(_model|_policy)?|reward.*|rm|value(_model)?|optim.*|speculator|data|logs?|runs?|wandb"
    r"|tensorboard|mlruns|tokenizer|processor|__pycache__|additional_chat_templates",
    re.IGNORECASE,
)
_STEP = re.compile(r"(?:.*[_-])?(?:step|steps|checkpoint|ckpt|iter|epoch)[_-]?(\d{1,18})", re.IGNORECASE)
# Files with the last finished step: of verl and Megatron, of SkyRL.
_MARKERS = ("latest_checkpointed_iteration.txt", "latest_ckpt_global_step.txt")


@dataclass(frozen=True)
class Place:
    """A directory with weights below the user's directory.

    Attributes:
        path: the path relative to the user's directory.
        forms: the weights in it, or the error that they raise.
    """

    path: Path
    forms: list[Form] | InputError

    @property
    def step(self) -> int | None:
        """The training step in the path, or the last one if there are several."""
        numbers = [int(found[1]) for part in self.path.parts if (found := _STEP.fullmatch(part))]
        return numbers[-1] if numbers else None

    @property
    def series(self) -> tuple[str, ...]:
        """The path without its step, which is the same for all steps of a run."""
        return tuple("*" if _STEP.fullmatch(part) else part for part in self.path.parts)


def find_weights(directory: Path) -> tuple[list[Form], list[str]]:
    """Return the weights in `directory`, or in the only directory below that has any, and sentences about the choice.

    Among the steps of a run, the newest is used, or the one that the trainer recorded as its latest.

    Raises:
        InputError: several directories may be meant, or the files contradict each other.
    """
    forms = find_forms(directory)
    if any(not form.doubtful for form in forms):
        return forms, []
    places = list(_places_below(directory))
    if not places:
        return forms, []
    place, why = _choose(directory, places)
    if isinstance(place.forms, InputError):
        raise place.forms
    return place.forms, [f"its weights are those in {place.path.as_posix()}, {why}"]


def subdirectories(directory: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield `directory` and the directories some levels below it, each with the names of its entries."""
    level = [directory]
    seen = 0
    for _ in range(_LEVELS + 1):
        below: list[Path] = []
        for path in level:
            seen += 1
            if seen > _MOST_DIRECTORIES:
                return
            with suppress(InputError):
                entries = list_directory(path)
                yield path, [entry.name for entry in entries]
                below += [
                    path / entry.name
                    for entry in entries
                    if entry.is_dir(follow_symlinks=False) and not _ASIDE.fullmatch(entry.name)
                ]
        level = below


def _places_below(directory: Path) -> Iterator[Place]:
    found: list[Path] = []
    for path, _ in subdirectories(directory):
        if path == directory or any(path.is_relative_to(above) for above in found):
            continue
        try:
            forms: list[Form] | InputError = [form for form in find_forms(path) if not form.doubtful]
        except InputError as error:
            forms = error
        if forms:
            found.append(path)
            yield Place(path.relative_to(directory), forms)


def _choose(directory: Path, places: list[Place]) -> tuple[Place, str]:
    if len(places) == 1:
        return places[0], "the only weights there"
    steps = {place.step: place for place in places}
    numbers = [step for step in steps if step is not None]
    if len({place.series for place in places}) > 1 or len(numbers) < len(places):
        listed = ", ".join(place.path.as_posix() for place in places[:_MOST_LISTED])
        more = ", ..." if len(places) > _MOST_LISTED else ""
        raise InputError(f"{directory} contains several models; give one of them: {listed}{more}")
    newest = max(numbers)
    finished = _finished(directory, steps[newest])
    if finished in steps and finished != newest:
        return steps[finished], f"the last of {len(places)} steps that the trainer finished"
    return steps[newest], f"the newest of {len(places)} steps"


def _finished(directory: Path, newest: Place) -> int | None:
    """Return the step that the trainer recorded as its latest, beside the directories of the steps."""
    depth = next(number for number, part in enumerate(newest.path.parts) if _STEP.fullmatch(part))
    beside = directory.joinpath(*newest.path.parts[:depth])
    for name in _MARKERS:
        with suppress(OSError, ValueError):
            return int((beside / name).read_bytes()[:20])
    return None
