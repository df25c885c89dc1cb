"""The place of a recipe's part in its file, and errors that name it."""

from collections.abc import Mapping
from pathlib import Path

from rammerge.errors import InputError

Location = tuple[str | int, ...]


def error_at(path: Path, lines: Mapping[Location, int], location: Location, message: str) -> InputError:
    """Return an InputError `path:line: key: message`, with the line of the closest enclosing part that has one."""
    line = next(lines[location[:end]] for end in range(len(location), -1, -1) if location[:end] in lines)
    key = ".".join(part if isinstance(part, str) else f"[{part}]" for part in location).replace(".[", "[")
    return InputError(f"{path}:{line}: {f'{key}: ' if key else ''}{message}")
