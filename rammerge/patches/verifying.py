"""Checking a patch: its own files, and with the base the files that it stands for."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.checkpoints.file_digest import FileDigest
from rammerge.checkpoints.patched.container import Patch, refuse
from rammerge.checkpoints.patched.opening import chain_of, open_patch
from rammerge.patches.files import check_file
from rammerge.system.reading import fill, open_regular

_CHUNK_BYTES = 1 << 22


def verify_patch(directory: Path, base: Checkpoint | None = None) -> Mapping[str, FileDigest]:
    """Check the files of a patch, and of all before it in its chain. Return the files of its agent.

    With its base, also what it unpacks to is checked.

    Raises:
        InputError: it is not a patch, one of its files is damaged or missing, or the base or another patch of its chain
            is a different one.
    """
    patch, *before = chain_of(directory.absolute())
    for link in (patch, *before):
        _check_files(link)
    if base is not None:
        for original in open_patch(directory, base).originals or ():
            original.check(original.sha256())
    return {**patch.contents.weights, **patch.contents.companions}


def _check_files(patch: Patch) -> None:
    directory = patch.file.parent
    for name, expected in patch.contents.companions.items():
        check_file(directory / name, expected, directory / name)
    if _sha256_after_header(patch) != patch.sha256:
        raise refuse(patch.file, "differs from what was packed")


def _sha256_after_header(patch: Patch) -> str:
    sha256 = hashlib.sha256()
    memory = memoryview(bytearray(_CHUNK_BYTES))
    with open_regular(patch.file) as (descriptor, size):
        for offset in range(min(info.offset for info in patch.stored.values()), size, len(memory)):
            part = memory[: size - offset]
            fill(descriptor, part, offset, patch.file)
            sha256.update(part)
    return sha256.hexdigest()
