"""Calls of the disk that write: all of a piece of memory, room set aside, flushing begun early."""

import ctypes
import errno
import os
from contextlib import suppress

from rammerge.system import libc

_SYNC_FILE_RANGE_WRITE = 2


def write_from(descriptor: int, view: memoryview, offset: int) -> None:
    """Write all of `view` at `offset` of an open file."""
    done = 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done:], offset + done)


def allocate(descriptor: int, nbytes: int) -> None:
    """Make an open file `nbytes` long, and where the file system can, have it set the room aside.

    Not by `os.posix_fallocate`: where the file system cannot, as NFS and many in user space, that writes into every
    block, which took the better part of a merge.

    Raises:
        OSError: there is not so much room.
    """
    try:
        libc.call("fallocate", descriptor, 0, ctypes.c_int64(0), ctypes.c_int64(nbytes))
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        os.ftruncate(descriptor, nbytes)


def start_flush(descriptor: int, offset: int, nbytes: int) -> None:
    """Ask the kernel to begin writing a part of an open file to the disk; what fails shows when the file is flushed."""
    with suppress(OSError):
        libc.call("sync_file_range", descriptor, ctypes.c_int64(offset), ctypes.c_int64(nbytes), _SYNC_FILE_RANGE_WRITE)
