"""Giving a finished model its name: the last rename."""

import errno
import os
import shutil
from pathlib import Path

from rammerge.errors import RammergeError
from rammerge.system import libc
from rammerge.system.atomic import sync

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


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
            f"{out} is complete, but then {error.filename or out.parent} failed ({error.strerror or error}); mend the "
            f"disk, see with `rammerge verify` whether {out} is whole, and remove {staging}"
        ) from error


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
