"""Settings of the C library's allocator, without which merging takes more memory and time."""

from contextlib import suppress

from rammerge.system import libc

# mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


def keep_freed_blocks() -> None:
    """Have glibc keep large blocks that are freed for the next ones, in one heap; nothing on other C libraries.

    Merging makes and frees tensors by the thousand. By default glibc returns large ones to the kernel, which clears
    their memory anew each time; and a heap for each thread grows, because an aligned block does not fit into the hole
    that its like has left (bug 14581 of glibc before 2.38). The sooner it is called the better: heaps that threads have
    already stay in use.
    """
    with suppress(OSError):
        for option, value in ((_M_MMAP_THRESHOLD, 32 << 20), (_M_TRIM_THRESHOLD, 64 << 20), (_M_ARENA_MAX, 1)):
            libc.call("mallopt", option, value)
