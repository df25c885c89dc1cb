"""Functions of the C library that Python does not offer."""

import ctypes
import errno
import os
from functools import cache
from typing import Any

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def call(name: str, *arguments: Any) -> int:
    """Call the C function `name`, which returns an int, and return its result.

    Args:
        name: the function.
        arguments: Python ints are passed as C `int`; any other type is passed as a ctypes value.

    Raises:
        OSError: the function returned a negative number, or this C library does not have it (ENOSYS).
    """
    function = getattr(_library(), name, None)
    result = -1 if function is None else int(function(*arguments))
    if result < 0:
        number = errno.ENOSYS if function is None else ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def end_with_parent(signum: int) -> None:
    """Have the kernel send a signal to this process when its parent dies for any reason. Linux only.

    Raises:
        OSError: the kernel cannot do this.
    """
    call("prctl", _PR_SET_PDEATHSIG, signum)


@cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
