"""System calls that write: whole buffers, preallocation, early flushing."""

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
    """Make an open file `nbytes` long, and preallocate it where the file system supports that.

    `os.posix_fallocate` is not used. Where the file system does not support preallocation, such as NFS and many file
    systems in user space, it writes into every block, which took most of the time of a merge.

    Raises:
        OSError: the disk has too little room.
    """
    try:
        libc.call("fallocate", descriptor, 0, ctypes.c_int64(0), ctypes.c_int64(nbytes))
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        os.ftruncate(descriptor, nbytes)


def start_flush(descriptor: int, offset: int, nbytes: int) -> None:
    """Ask the kernel to start writing a part of an open file to the disk. The final flush reports errors."""
    with suppress(OSError):
        libc.call("sync_file_range", descriptor, ctypes.c_int64(offset), ctypes.c_int64(nbytes), _SYNC_FILE_RANGE_WRITE)
