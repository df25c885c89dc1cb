"""The code that a suite shares with bundled suites, which its digest has to cover."""

import ast
from collections.abc import Iterator
from pathlib import Path

_BUNDLED = Path(__file__).resolve().parent / "bundled"
_PACKAGE = "evaluation.suites.bundled."


def with_bundled(file: Path) -> set[Path]:
    """Return a module's file, and those of the modules of bundled suites that it imports, and that these import."""
    found: set[Path] = set()
    left = [file]
    while left:
        each = left.pop()
        if each not in found:
            found.add(each)
            left.extend(_imported(each))
    return found


def _imported(file: Path) -> Iterator[Path]:
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return  # not Python; whoever imports it says so
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(_PACKAGE):
            place = _BUNDLED.joinpath(*node.module.removeprefix(_PACKAGE).split("."))
            yield from (path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file())
