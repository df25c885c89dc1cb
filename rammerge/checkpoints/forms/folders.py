"""Finding the weights in a trainer's directory: at its top, or some levels below in the newest step."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePath

from rammerge.checkpoints.forms.candidates import find_forms
from rammerge.checkpoints.forms.form import Form
from rammerge.errors import InputError
from rammerge.system.reading import list_directory, read_start

# experiment / global_step_20 / policy / weights
_LEVELS = 4
_MOST_DIRECTORIES = 5000
_MOST_LISTED = 8
_MOST_DIGITS = 20
# Models that a trainer keeps beside the agent, and directories without models.
_ASIDE = re.compile(
    r"\..*|critic.*|ref(erence)?(_model|_policy)?|reward.*|rm|value(_model)?|optim.*|speculator|data|logs?|runs?|wandb"
    r"|tensorboard|mlruns|tokenizer|processor|__pycache__|additional_chat_templates",
    re.IGNORECASE,
)
_STEP = re.compile(r"(?:.*[_-])?(?:step|steps|checkpoint|ckpt|iter|epoch)[_-]?(\d{1,18})", re.IGNORECASE)
# Files with the last finished step: of verl and Megatron, of SkyRL.
MARKERS = ("latest_checkpointed_iteration.txt", "latest_ckpt_global_step.txt")


def find_weights(directory: Path) -> tuple[list[Form], list[str]]:
    """Return the weights in `directory`, or in the only directory below that has any, and sentences about the choice.

    Among the steps of a run, the newest is used, or the one that the trainer recorded as its latest.

    Raises:
        InputError: several directories may be meant, or the files contradict each other.
    """
    forms = find_forms(directory)
    if any(not form.doubtful for form in forms):
        return forms, []
    below = dict(_weights_below(directory))
    if not below:
        return forms, []
    place, note = choose_place(directory, list(below), what=str(directory))
    found = below[place]
    if isinstance(found, InputError):
        raise found
    return found, [note]


def choose_place(
    directory: Path, places: Sequence[Path], *, what: str, fix: str = "give one of them"
) -> tuple[Path, str]:
    """Return the one of several directories with weights that is meant, and a sentence about the reason.

    Args:
        directory: where the `places` are, and the files in which trainers record their latest step.
        places: the directories, relative to `directory`.
        what: the name of `directory` for messages.
        fix: what to do if several may be meant.

    Raises:
        InputError: several may be meant.
    """
    if len(places) > 1 and not _are_steps(places):
        listed = ", ".join(place.as_posix() for place in places[:_MOST_LISTED])
        more = ", ..." if len(places) > _MOST_LISTED else ""
        raise InputError(f"{what} contains several models; {fix}: {listed}{more}")
    place, why = _choose(directory, places)
    return place, f"its weights are those in {place.as_posix()}, {why}"


def is_reached(place: PurePath) -> bool:
    """Tell whether weights are looked for in the directory `place` below the user's."""
    return len(place.parts) <= _LEVELS and not any(_ASIDE.fullmatch(part) for part in place.parts)


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


def _weights_below(directory: Path) -> Iterator[tuple[Path, list[Form] | InputError]]:
    """Yield the directories with weights below `directory`, relative to it, and the weights or the error in them."""
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
            yield path.relative_to(directory), forms


def _are_steps(places: Sequence[Path]) -> bool:
    """Tell whether the places are steps of one run."""
    return len({_series(place) for place in places}) == 1 and all(_step(place) is not None for place in places)


def _choose(directory: Path, places: Sequence[Path]) -> tuple[Path, str]:
    """Return the only place, or the step to take of a run, and the reason."""
    if len(places) == 1:
        return places[0], "the only weights there"
    steps = {step: place for place in places if (step := _step(place)) is not None}
    newest = max(steps)
    finished = _finished(directory, steps[newest])
    if finished in steps and finished != newest:
        return steps[finished], f"the last of {len(places)} steps that the trainer finished"
    return steps[newest], f"the newest of {len(places)} steps"


def _step(place: Path) -> int | None:
    """Return the training step in a path, or the last one if there are several."""
    numbers = [int(found[1]) for part in place.parts if (found := _STEP.fullmatch(part))]
    return numbers[-1] if numbers else None


def _series(place: Path) -> tuple[str, ...]:
    """Return a path without its step, which is the same for all steps of a run."""
    return tuple("*" if _STEP.fullmatch(part) else part for part in place.parts)


def _finished(directory: Path, newest: Path) -> int | None:
    """Return the step that the trainer recorded as its latest, beside the directories of the steps."""
    depth = next(number for number, part in enumerate(newest.parts) if _STEP.fullmatch(part))
    beside = directory.joinpath(*newest.parts[:depth])
    for name in MARKERS:
        with suppress(InputError, ValueError):
            return int(read_start(beside / name, _MOST_DIGITS))
    return None
