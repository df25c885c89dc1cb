"""Open the checkpoint that a user names by a directory or a hub id."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rammerge.checkpoints.checkpoint import Checkpoint, open_checkpoint
from rammerge.checkpoints.forms import choice, conversion
from rammerge.checkpoints.forms.choice import choose
from rammerge.checkpoints.forms.conversion import as_safetensors, is_in_other_layout
from rammerge.checkpoints.forms.folders import find_weights
from rammerge.checkpoints.forms.foreign import refuse
from rammerge.checkpoints.patched.place import is_patch
from rammerge.errors import InputError
from rammerge.system.paths import exists, expanded

# Changes whenever the same source may be read as a different checkpoint than before.
FETCH_VERSION = (conversion.VERSION, choice.VERSION)

_HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")


def fetch(
    source: str,
    revision: str | None = None,
    *,
    base: Checkpoint | None = None,
    progress: Callable[[str], None] | None = None,
) -> Checkpoint:
    """Return the checkpoint that `source` names: a local directory, or a hub id `org/name[@revision]`.

    A path that exists takes precedence over a hub id. The weights may be a few levels below the directory, as trainers
    save them. Plain safetensors in the layout and dtypes of the base are used directly. All other forms are converted
    once, and the result is kept; rammerge.checkpoints.forms has a module per form. Downloads are kept too. A patch is
    opened as the agent that it stands for, and not unpacked.

    Args:
        source: the name that the user wrote.
        revision: branch, tag or commit of a hub id; the same as `@revision` in the source.
        base: the base of the run. It is needed for adapters and patches, and sets layout and dtype of the agents.
        progress: called with one line at the start of each long step.

    Raises:
        InputError: the model does not exist or cannot be used; the message says how to fix that.
        RammergeError: the hub did not answer, or a download was damaged; the same call may succeed later.
    """
    say = progress or (lambda _: None)
    path, commit, downloaded = _locate(source, revision, say)
    if is_patch(path):
        return replace(_open_patch(path, base), source=source, revision=commit, notes=tuple(downloaded))
    forms, found = find_weights(path)
    if not forms:
        raise refuse(path)
    form, chosen = choose(forms, base, say)
    notes = (*downloaded, *found, *chosen)
    for note in notes:
        say(f"{source}: {note}")
    opened = open_checkpoint(as_safetensors(form, source, base, say))
    return replace(opened, source=source, revision=commit, notes=(*notes, *opened.notes))


def _open_patch(path: Path, base: Checkpoint | None) -> Checkpoint:
    from rammerge.checkpoints.patched.opening import open_patch  # only patches need numpy and pyarrow

    opened = open_patch(path, base)
    if base is not None and is_in_other_layout(opened.tensors, opened.config, base):
        raise InputError(
            f"{path} is a patch of an agent whose layout or dtypes are not the base's; unpack it with "
            "`rammerge unpack` and give the result, which can be converted"
        )
    return opened


def _locate(
    source: str, revision: str | None, progress: Callable[[str], None]
) -> tuple[Path, str | None, Sequence[str]]:
    """Return the directory of a source; for a hub id also the commit, and sentences about the place in it."""
    path = expanded(source)
    if source and exists(path, follow=False):
        if revision is not None:
            raise InputError(f"{source} is a local directory, which has no revision {revision}; leave the revision out")
        return path.absolute(), None, ()
    match = _HUB_ID.fullmatch(source)
    if match is None or source.startswith((".", "/", "~")):
        raise InputError(f"{source or 'an empty name'} does not exist; give a directory or a hub id such as org/name")
    if match["revision"] and revision not in (None, match["revision"]):
        raise InputError(f"{source} and revision {revision} contradict each other; give the revision once")
    from rammerge.checkpoints.hub import download  # only hub ids need the HTTP client

    found = download(match["repo"], match["revision"] or revision, progress)
    return found.path, found.commit, found.notes
