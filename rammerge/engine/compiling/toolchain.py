"""The C++ compiler of this machine, for the process that asks for a compiled form and for the one that makes it."""

import os
import shutil

# Many times as long as a build takes: one that takes longer hangs.
BUILD_SECONDS = 120


def compiler() -> str | None:
    """Return the C++ compiler to use, or None if the machine has none."""
    return next(
        (found for name in (os.environ.get("CXX"), "g++", "clang++") if name and (found := shutil.which(name))), None
    )
