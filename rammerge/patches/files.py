"""The files of an agent that a patch keeps beside its weights, and those that it leaves out."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.checkpoints.digest import sha256_file
from rammerge.checkpoints.file_digest import FileDigest
from rammerge.checkpoints.patched.place import FILE
from rammerge.checkpoints.stored import main_set
from rammerge.errors import InputError
from rammerge.system.atomic import sync
from rammerge.system.reading import list_directory, stat_file

# Descriptions of a model: its card, an index of its shards, a trainer's settings. They are small.
_TEXT = (".json", ".md")


def weight_files(agent: Checkpoint) -> tuple[str, ...]:
    """Return the names of all files of the agent's weights, also of those that repeat a tied tensor."""
    return main_set(agent.path, [entry.name for entry in list_directory(agent.path)]).files


def companions(agent: Checkpoint) -> dict[str, Path]:
    """Return the files to keep byte for byte, by their path in the agent's directory."""
    found = {file.relative_to(agent.path).as_posix(): file for file in agent.sidecars}
    for entry in _files(agent.path):
        if entry.name.endswith(_TEXT) and not entry.name.startswith("."):
            found[entry.name] = Path(entry)
    return {name: file for name, file in sorted(found.items()) if name != FILE}


def left_out(agent: Checkpoint) -> list[str]:
    """Return the names of the files at the top of the agent's directory that belong to no part of a patch."""
    kept = {*weight_files(agent), *companions(agent)}
    return [entry.name for entry in _files(agent.path) if entry.name not in kept and not entry.name.startswith(".")]


def copy_companions(source: Path, target: Path, expected: Mapping[str, FileDigest]) -> None:
    """Copy files from one directory to the same paths in another, flushed to the disk.

    Raises:
        InputError: a file is missing or has a different content than expected.
    """
    for name, digest in expected.items():
        stat_file(source / name)
        (target / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(source / name, target / name)
        sync(target / name)
        check_file(target / name, digest, source / name)


def check_file(file: Path, expected: FileDigest, shown: Path) -> None:
    """Check the content of `file`, which messages call `shown`.

    Raises:
        InputError: it is not as expected.
    """
    if stat_file(file).st_size != expected.size or sha256_file(file) != expected.sha256:
        raise InputError(f"{shown} is not what was packed (its SHA-256 differs); restore it, or pack the agent again")


def _files(directory: Path) -> list[os.DirEntry[str]]:
    return [entry for entry in list_directory(directory) if entry.is_file()]
