"""Exchanging the names of two directories in one step."""

import errno
import os
from pathlib import Path

from rammerge.system import libc

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def exchange(left: Path, right: Path) -> None:
    """Give each of two directories on one file system the other's name.

    Raises:
        OSError: the disk failed, and both are unchanged.
    """
    try:
        libc.call("renameat2", _AT_FDCWD, os.fsencode(left), _AT_FDCWD, os.fsencode(right), _RENAME_EXCHANGE)
        return
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise OSError(error.errno, error.strerror, str(right)) from error
    # This file system cannot exchange names. Between two renames nothing is called `right`.
    aside = left.with_name(f"{left.name}.old")
    right.rename(aside)
    try:
        left.rename(right)
    except OSError:
        aside.rename(right)
        raise
    aside.rename(left)
