"""The packages beside this one. A user may have directories with their names: `flows`, `tasks`, `evaluation`.

Python imports the first directory on its path that has the name. If that is not rammerge's own package, commands would
fail with an import error that names a module and not the cause.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_NEIGHBOURS = ("flows", "tasks", "evaluation")
PACKAGES = ("rammerge", *_NEIGHBOURS)


def hidden_neighbour() -> str | None:
    """Return a sentence about a directory that hides a package beside rammerge, or None if there is none."""
    for name in _NEIGHBOURS:
        found = _location(name)
        if found is None:
            return f"rammerge's own package '{name}' is missing from {ROOT}; install rammerge again"
        if found.resolve() != ROOT / name:
            return (
                f"{found} hides rammerge's own package '{name}' ({ROOT / name}); run from a different directory, "
                f"rename it, or take {found.parent} off PYTHONPATH"
            )
    return None


def _location(name: str) -> Path | None:
    """Return the directory, or the file of a module, that `import name` would load, without importing it."""
    loaded = sys.modules.get(name)
    spec = loaded.__spec__ if loaded else find_spec(name)
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(spec.origin) if spec.origin else None
