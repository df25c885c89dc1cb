"""What compiles on this machine, known to the process that asks for a compiled form and to the one that makes it."""

import os
import shutil

# Many times what it takes: a build that goes on for longer hangs.
BUILD_SECONDS = 120


def compiler() -> str | None:
    """Return the C++ compiler that would be used, or None when the machine has none."""
    return next(
        (found for name in (os.environ.get("CXX"), "g++", "clang++") if name and (found := shutil.which(name))), None
    )
