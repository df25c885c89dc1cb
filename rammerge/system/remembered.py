"""SHA-256 that are remembered below `home()/digests` while nothing writes to the files that they were computed from."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rammerge.errors import InputError
from rammerge.system.atomic import write_json
from rammerge.system.home import home
from rammerge.system.reading import stat_file
from rammerge.system.status import file_status

# Time stamps advance in steps of milliseconds, so a file this young may change again without changing its stamp.
_RACY_NS = 1_000_000_000


def remember_sha256(what: str, sources: Sequence[Path], compute: Callable[[], str]) -> str:
    """Return the SHA-256 of `what`, which `compute` finds; remembered while the status of `sources` is unchanged.

    Raises:
        InputError: a source cannot be read.
    """
    memory = _memories() / f"{hashlib.sha256(os.fsencode(what)).hexdigest()}.json"
    before = [stat_file(path) for path in sources]
    status = _numbers(before)
    remembered = _read(memory)
    if remembered.get("status") == status and isinstance(remembered.get("sha256"), str):
        return str(remembered["sha256"])
    found = compute()
    settled = time.time_ns() - max(max(each.st_mtime_ns, each.st_ctime_ns) for each in before) > _RACY_NS
    if settled and _numbers(map(stat_file, sources)) == status:
        content = {"path": what, "sources": list(map(str, sources)), "status": status, "sha256": found}
        with suppress(OSError):  # if this cannot be remembered, the file is hashed again next time
            write_json(memory, content)
    return found


def forget_stale() -> int:
    """Forget the SHA-256 of files that are gone, or were written to since. Return how many there were."""
    stale = [memory for memory in _memories().glob("*.json") if not _is_current(_read(memory))]
    for memory in stale:
        memory.unlink(missing_ok=True)
    return len(stale)


def _is_current(remembered: dict[str, Any]) -> bool:
    sources = remembered.get("sources", [remembered.get("path")])  # earlier versions noted no sources
    try:
        return bool(_numbers(stat_file(Path(source)) for source in sources) == remembered.get("status"))
    except (InputError, TypeError):
        return False


def _memories() -> Path:
    return home() / "digests"


def _numbers(statuses: Iterable[os.stat_result]) -> list[int]:
    return [number for each in statuses for number in file_status(each)]


def _read(memory: Path) -> dict[str, Any]:
    """Return what a file remembers; nothing if it cannot be read, and then what it was about is hashed again."""
    with suppress(OSError, ValueError):
        content = json.loads(memory.read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}
    return {}
