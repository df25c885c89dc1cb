"""Turning a finished staging directory into a model directory: companions, manifest, the last rename, verification."""

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.checkpoints.digest import sha256_file
from rammerge.errors import InputError, RammergeError, out_of_space
from rammerge.system import libc
from rammerge.system.atomic import sync, write_json, write_text
from rammerge.system.locks import try_locked

MANIFEST = "rammerge.json"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK}


def staging_directory(out: Path) -> Path:
    """Return the directory in which a merge into `out` is prepared. It is beside `out`, on the same disk.

    Its `model` becomes `out` by a rename. The records that a later run needs to resume are next to `model`.
    """
    return out.parent / f".{out.name}.partial"


@contextmanager
def locked_staging(out: Path) -> Iterator[Path]:
    """Lock the staging directory of `out`, which is made if missing. The kernel frees the lock when this process ends.

    Raises:
        InputError: another process is merging into `out`.
        RammergeError: the disk is full or failed, here or within the context.
    """
    staging = staging_directory(out)
    with ExitStack() as stack:
        try:
            stack.enter_context(try_locked(out.parent / f".{out.name}.lock"))
        except BlockingIOError as error:
            raise InputError(
                f"another process is merging into {out}; wait for it or choose a different output"
            ) from error
        except OSError as error:
            if error.errno in _NO_LOCKS:
                raise InputError(
                    f"{out.parent} is on a file system without locks ({error.strerror}); mount it with them "
                    "(Lustre's option is `flock`) or choose a different disk"
                ) from error
            raise _disk_error(staging, error) from error
        try:
            staging.mkdir(exist_ok=True)
            yield staging
        except InputError:  # bad input stays bad, so a later run has nothing to resume
            shutil.rmtree(staging)
            raise
        except OSError as error:
            raise _disk_error(staging, error) from error


def _disk_error(staging: Path, error: OSError) -> RammergeError:
    if out_of_space(error):
        what, fix = f"no space left in {staging.parent}", "make room and run again"
    else:
        what, fix = f"{error.filename or staging} failed ({error.strerror or error})", "mend the disk and run again"
    return RammergeError(f"{what}; {fix}: the finished shards are kept")


def write_companions(model: Path, base: Checkpoint, companions: Checkpoint, dtype: str, card: str) -> None:
    """Write the files that complete a model: the sidecar files of `companions` byte for byte, the config, the card.

    The config is the base's, with the output dtype wherever it names a dtype.
    """
    for file in companions.sidecars:
        if file.name != "config.json":
            target = model / file.relative_to(companions.path)
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, target)
            sync(target)
    write_text(model / "config.json", json.dumps(_with_dtype(base.config, dtype, top=True), indent=2) + "\n")
    write_text(model / "README.md", card)


def _with_dtype(config: Mapping[str, Any], dtype: str, *, top: bool) -> dict[str, Any]:
    result = {
        key: _with_dtype(value, dtype, top=False) if key.endswith("_config") and isinstance(value, Mapping) else value
        for key, value in config.items()
    }
    names = [key for key in ("dtype", "torch_dtype") if key in result] or (["dtype"] if top else [])
    return {**result, **dict.fromkeys(names, dtype)}


def write_manifest(model: Path, content: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, Any]:
    """Write rammerge.json: `content`, and each file's SHA-256, which is taken from `known` by name or computed."""
    files = {}
    for path in sorted(path for path in model.rglob("*") if path.is_file() and path.name != MANIFEST):
        name = path.relative_to(model).as_posix()
        files[name] = {"size": path.stat().st_size, "sha256": known.get(name) or sha256_file(path)}
    manifest = {**content, "files": files}
    write_json(model / MANIFEST, manifest)
    return manifest


def publish(staging: Path, out: Path) -> None:
    """Rename `staging`/model to `out` in one step, in exchange for an existing `out`; then remove `staging`.

    Raises:
        OSError: the disk failed, and `out` is unchanged.
        RammergeError: the disk failed after `out` had become the new model.
    """
    model = staging / "model"
    sync(model)
    if out.exists():
        _exchange(model, out)
    else:
        model.rename(out)
    try:
        sync(out.parent)
        shutil.rmtree(staging)
    except OSError as error:
        raise RammergeError(
            f"{out} is merged, but then {error.filename or out.parent} failed ({error.strerror or error}); mend the "
            f"disk, see with `rammerge verify` whether {out} is whole, and remove {staging}"
        ) from error


def verify(path: Path) -> dict[str, Any]:
    """Compare each file of a merged model with its SHA-256 in rammerge.json, and return the manifest.

    Raises:
        InputError: the directory has no readable rammerge.json.
        RammergeError: a file is missing, differs or was added; the message names the first one.
    """
    manifest = read_manifest(path)
    for name, entry in sorted(manifest["files"].items()):
        file = path / name
        if not file.is_file():
            raise RammergeError(f"{file} is missing though {MANIFEST} lists it; merge again or restore it")
        if file.stat().st_size != entry["size"] or sha256_file(file) != entry["sha256"]:
            raise RammergeError(f"{file} differs from what was merged (its SHA-256 is not {MANIFEST}'s); merge again")
    present = {file.relative_to(path).as_posix() for file in path.rglob("*.safetensors")}
    for name in sorted(present - set(manifest["files"])):
        raise RammergeError(f"{path / name} was added after the merge; remove it, loaders may take it for the model's")
    return manifest


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the rammerge.json of a model directory.

    Raises:
        InputError: there is none, or rammerge did not write it.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        entries = manifest["files"].items()
        if all({"size", "sha256"} <= set(entry) and ".." not in Path(name).parts for name, entry in entries):
            return dict(manifest)
    except FileNotFoundError as error:
        raise InputError(f"{path} has no {MANIFEST}; give a directory that `rammerge merge` wrote") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    raise InputError(f"{path / MANIFEST} is damaged; merge again")


def _exchange(left: Path, right: Path) -> None:
    try:
        libc.call("renameat2", _AT_FDCWD, os.fsencode(left), _AT_FDCWD, os.fsencode(right), _RENAME_EXCHANGE)
        return
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise OSError(error.errno, error.strerror, str(right)) from error
    # This file system cannot exchange names. Between two renames the old model has this name.
    aside = left.with_name(f"{left.name}.old")
    right.rename(aside)
    left.rename(right)
    aside.rename(left)
