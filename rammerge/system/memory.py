"""How much memory this machine, or this container, has, and how much of it is free."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
# Where a container's limit and its use are, by the version of control groups: 2, and 1.
_GROUPS = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes"),
)
# What a container has of the page cache counts as used, and is free for whoever needs it.
_CACHED = ("active_file", "inactive_file")


def total_memory() -> int:
    """Return the memory of the machine in bytes, or what the container may have of it."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for directory, limit, _ in _GROUPS:
        with suppress(OSError, ValueError):  # "max" is not a number
            total = min(total, int((directory / limit).read_text("ascii")))
    return total


def free_memory() -> int:
    """Return the bytes that this process can still take, from the machine and from its container."""
    free = total_memory()
    with suppress(OSError, ValueError):
        free = min([free, *(1024 * size for name, size in _numbers(_MEMINFO) if name == "MemAvailable:")])
    for directory, limit, used in _GROUPS:
        with suppress(OSError, ValueError):
            cached = sum(size for name, size in _numbers(directory / "memory.stat") if name in _CACHED)
            left = int((directory / limit).read_text("ascii")) - int((directory / used).read_text("ascii"))
            free = min(free, left + cached)
    return max(0, free)


def _numbers(file: Path) -> Iterator[tuple[str, int]]:
    """Yield the name and the number of each line."""
    for line in file.read_text("ascii").splitlines():
        name, size, *_ = line.split()
        yield name, int(size)
