"""Settings of the C library's allocator that save memory and time in a merge."""

from contextlib import suppress

from rammerge.system import libc

# mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


def keep_freed_blocks() -> None:
    """Make glibc keep freed large blocks for reuse, in a single heap; other C libraries are left alone.

    A merge makes and frees thousands of tensors. By default glibc returns large blocks to the kernel, which clears
    their memory again each time. It also gives each thread a heap of its own. Those heaps grow, because an aligned
    block does not fit into the hole that an equal block left (bug 14581 of glibc before 2.38). Call this early: a heap
    that a thread already has stays in use.
    """
    with suppress(OSError):
        for option, value in ((_M_MMAP_THRESHOLD, 32 << 20), (_M_TRIM_THRESHOLD, 64 << 20), (_M_ARENA_MAX, 1)):
            libc.call("mallopt", option, value)
