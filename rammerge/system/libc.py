"""Functions of the C library that Python does not offer."""

import ctypes
import errno
import os
from functools import cache
from typing import Any


def call(name: str, *arguments: Any) -> int:
    """Call a function that returns an int; of the arguments, ints are C's `int`, and others ctypes' own.

    Raises:
        OSError: it returned less than zero; with ENOSYS, this library does not have it.
    """
    function = getattr(_library(), name, None)
    result = -1 if function is None else int(function(*arguments))
    if result < 0:
        number = errno.ENOSYS if function is None else ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


@cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
