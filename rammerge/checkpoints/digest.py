"""Content digests of checkpoints. They are remembered by file status, so each file is hashed only once."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.checkpoints.file_digest import FileDigest
from rammerge.system.reading import open_regular, refuse_os_error, stat_file
from rammerge.system.remembered import remember_sha256
from rammerge.system.status import digest_statuses

if TYPE_CHECKING:
    from rammerge.checkpoints.patched.originals import OriginalFile

_CONFIG = "config.json"
_CHUNK_BYTES = 1 << 22


@dataclass(frozen=True)
class CheckpointDigest:
    """Identity of a checkpoint's content: `digest` covers the weight files and config.json, `files` lists them."""

    digest: str
    files: Mapping[str, FileDigest]


def digest_checkpoint(checkpoint: Checkpoint, known: Mapping[str, FileDigest] = {}) -> CheckpointDigest:
    """Hash the weight files and config.json of `checkpoint`, several at a time; remembered hashes are reused.

    The digest is the SHA-256 of the lines `name size sha256` sorted by name. It does not depend on the directory's path
    or on tokenizer and documentation files. A patch has the digest of the agent that it stands for. Files that are
    `known` by their name are not read.
    """
    if checkpoint.originals is None:
        files = {path.name: path for path in _identity_files(checkpoint)}
        with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
            found = pool.map(lambda path: known.get(path.name) or digest_file(path), files.values())
            digests = dict(zip(files, found, strict=True))
    else:
        digests = _digests_of_patch(checkpoint, checkpoint.originals, _digest_original)
    return CheckpointDigest(_digest_of(digests), dict(sorted(digests.items())))


def claimed_digest(checkpoint: Checkpoint) -> str:
    """Return the digest of the agent that a patch says it stands for. Its weights are not computed."""
    return _digest_of(_digests_of_patch(checkpoint, checkpoint.originals or (), lambda original: original.claimed))


def _digests_of_patch(
    checkpoint: Checkpoint, originals: Sequence["OriginalFile"], digest: Callable[["OriginalFile"], FileDigest]
) -> dict[str, FileDigest]:
    found = {original.name: digest(original) for original in originals if checkpoint.tensors.keys() & original.names}
    return {**found, _CONFIG: digest_file(checkpoint.path / _CONFIG)}


def _digest_of(files: Mapping[str, FileDigest]) -> str:
    lines = [f"{name} {found.size} {found.sha256}\n" for name, found in sorted(files.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _digest_original(original: "OriginalFile") -> FileDigest:
    what = f"{original.name} of {original.patch}"
    original.check(remember_sha256(what, original.sources, original.sha256))
    return original.claimed


def fingerprint(checkpoint: Checkpoint) -> str:
    """Return a cheap identity of the same files, made of their status. It changes when one of them is rewritten."""
    if checkpoint.originals is None:
        return digest_statuses({path.name: stat_file(path) for path in _identity_files(checkpoint)})
    files = [checkpoint.path / _CONFIG, *(file for original in checkpoint.originals for file in original.sources)]
    return digest_statuses({f"{place} {path.name}": stat_file(path) for place, path in enumerate(dict.fromkeys(files))})


def digest_file(path: Path) -> FileDigest:
    """Return size and SHA-256 of `path`, remembered below `home()/digests` as long as its status is unchanged."""
    path = path.absolute()
    return FileDigest(stat_file(path).st_size, remember_sha256(str(path), [path], lambda: sha256_file(path)))


def sha256_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of the regular file `path`, using little memory."""
    sha256 = hashlib.sha256()
    buffer = bytearray(_CHUNK_BYTES)
    view = memoryview(buffer)
    with open_regular(path) as (descriptor, _):
        try:
            while count := os.readv(descriptor, [buffer]):
                sha256.update(view[:count])
        except OSError as error:
            raise refuse_os_error(path, error) from error
    return sha256.hexdigest()


def _identity_files(checkpoint: Checkpoint) -> list[Path]:
    return [*checkpoint.weight_files, checkpoint.path / _CONFIG]
