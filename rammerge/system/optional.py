"""Packages that other packages import if they find them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without(*packages: str) -> Iterator[None]:
    """While the context lasts, hide these packages from imports, unless they are imported already.

    What is imported in the context does without them for good. So this is for programs, not for libraries.
    """
    absent = [name for name in packages if name not in sys.modules]
    hidden: dict[str, None] = dict.fromkeys(absent)
    sys.modules.update(hidden)  # type: ignore[arg-type]  # None is how Python says that a module cannot be imported
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]
