"""The two kinds of error that a user meets, and the hint that names the option they probably meant."""

import difflib
import errno
from collections.abc import Collection, Iterable


class RammergeError(Exception):
    """A step failed or was refused. The message is one sentence: what, where, and how to fix it."""

    exit_code = 1


class InputError(RammergeError):
    """Bad input, found before any work was done."""

    exit_code = 2


def closest(name: str, options: Iterable[str]) -> str:
    """Return `" (did you mean 'x'?)"` for the option closest to `name`, or `""` when none is close."""
    near = difflib.get_close_matches(name, sorted(options), n=1, cutoff=0.5)
    return f" (did you mean '{near[0]}'?)" if near else ""


def check_choice(what: str, value: object, choices: Collection[str]) -> None:
    """Check that `value` is one of `choices`.

    Raises:
        InputError: it is not; the message names the choices and the nearest one.
    """
    if value not in choices:
        raise InputError(f"{what} {value!r} is unknown{closest(str(value), choices)}; use {', '.join(choices)}")


def out_of_space(error: BaseException) -> bool:
    """Tell whether `error` means that a disk or a quota is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def no_space(where: object) -> str:
    """Return the sentence for a full disk: the one that `where`, a file or a directory, is on."""
    return f"no space left on the disk of {where}; make room and run again: what was finished is kept"
