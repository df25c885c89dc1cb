"""Choosing among several sets of weights in a directory: the agent fits the base and differs from it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from rammerge import store
from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.checkpoints.digest import digest_checkpoint, digest_file
from rammerge.checkpoints.forms.fitting import Fitted, equal, fit, fits
from rammerge.checkpoints.forms.form import Form
from rammerge.checkpoints.forms.tensors import LazyTensor, stored
from rammerge.errors import InputError
from rammerge.system.atomic import write_json
from rammerge.system.reading import quote

# Raise this when the choice for the same files changes.
VERSION = 1


def choose(forms: Sequence[Form], base: Checkpoint | None, progress: Callable[[str], None]) -> tuple[Form, list[str]]:
    """Return the form that contains the model, and sentences about the reason if there was a choice.

    Without a base, this is the form that transformers would load. With a base, the weights of all forms are compared
    with it and with each other. The result is remembered by the content of the files.

    Raises:
        InputError: several forms fit the base and differ, or nothing shows which one is meant.
    """
    usual = [form for form in forms if not form.doubtful]
    if len(forms) == 1 or (base is None and usual):
        return (usual or forms)[0], []
    if base is None:
        listed = ", ".join(form.title for form in forms)
        raise InputError(
            f"{forms[0].where} contains several files that may be the model: {listed}; leave only that one there"
        )
    known = base

    def build(directory: Path) -> None:
        progress(f"comparing {', '.join(form.title for form in forms)} with the base")
        number, notes = _compare(forms, known)
        write_json(directory / "choice.json", {"number": number, "notes": notes})

    inputs = {
        "forms": [[form.name, *(digest_file(file).sha256 for file in form.files)] for form in forms],
        "names": [[file.name for file in form.files] for form in forms],
        "base": digest_checkpoint(base).digest,
    }
    entry = store.materialise("chosen", store.key_of("choose", VERSION, inputs), build)
    found = json.loads((entry.path / "choice.json").read_text(encoding="utf-8"))
    return forms[found["number"]], found["notes"]


def _compare(forms: Sequence[Form], base: Checkpoint) -> tuple[int, list[str]]:
    """Return the index of the form that is the agent, and sentences about the others."""
    fitted: dict[int, Fitted] = {}
    reasons: dict[int, InputError] = {}
    for number, form in enumerate(forms):
        try:
            found = fit(form, base)
        except InputError as error:
            reasons[number] = error
            continue
        if fits(base, found.tensors):
            fitted[number] = found
    if not fitted and 0 in reasons:
        raise reasons[0]
    if not fitted:
        return 0, []  # the later comparison with the base says what is missing
    original = {name: stored(info) for name, info in base.tensors.items()}
    changed = {number: found for number, found in fitted.items() if not _is_base(found, original)}
    first = next(iter(changed or fitted))
    for number in list(changed)[1:]:
        if not equal(changed[first].tensors, changed[number].tensors):
            raise InputError(
                f"{forms[first].where} contains two different models that fit the base: {forms[first].title} and "
                f"{forms[number].title}; leave only the agent's there"
            )
    return first, _notes(forms, first, list(fitted), list(changed))


def _is_base(found: Fitted, original: dict[str, LazyTensor]) -> bool:
    return not found.untied and equal(found.tensors, original)


def _notes(forms: Sequence[Form], first: int, fitted: Sequence[int], changed: Sequence[int]) -> list[str]:
    others = [number for number in range(len(forms)) if number != first]
    unfit = [forms[number].title for number in others if number not in fitted]
    same = [forms[number].title for number in others if number in fitted and number not in changed]
    notes = [f"its weights are {quote(forms[first].title)[1:-1]}"]
    notes += [f"{', '.join(unfit)} beside them do not fit the base"] if unfit else []
    notes += [f"{', '.join(same)} beside them has the base's weights"] if same else []
    return ["; ".join(notes)]
