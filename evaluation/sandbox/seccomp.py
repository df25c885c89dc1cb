"""The system calls that a program of a model may not make, as a filter that the kernel runs.

Namespaces hide what is outside; the filter closes what they leave open: it allows no second process and no thread,
whoever started the sandbox (the kernel does not hold root to RLIMIT_NPROC), no sockets, no memory that RLIMIT_AS does
not count, and none of the rarely used calls in which weaknesses of kernels are found.
"""

import errno
import platform
import struct

# The kernel's numbers of the calls, by machine: (x86_64, aarch64); None where a machine lacks the call.
_DENIED: dict[str, tuple[int | None, int | None]] = {
    "clone": (56, 220),
    "clone3": (435, 435),
    "fork": (57, None),
    "vfork": (58, None),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "open_by_handle_at": (304, 265),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
}
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # linux/audit.h
_X32 = 0x40000000  # numbers from here on are a second set of calls of x86_64

# linux/bpf_common.h and linux/seccomp.h
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER, _ARCHITECTURE = 0, 4  # where struct seccomp_data has them
_KILL, _ERROR, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000


def denied_calls() -> list[str]:
    """Return the names of the calls that this machine has."""
    column = list(_ARCHITECTURES).index(platform.machine())
    return [name for name, numbers in _DENIED.items() if numbers[column] is not None]


def call_filter() -> bytes:
    """Return the filter, an array of `struct sock_filter`; b"" on a machine whose numbers are not known here."""
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        return b""
    column = list(_ARCHITECTURES).index(machine)
    denied = sorted(number for numbers in _DENIED.values() if (number := numbers[column]) is not None)
    lines = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, _ARCHITECTURES[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, len(denied) + 1, 0, _X32),
        *((_EQUAL, len(denied) - place, 0, number) for place, number in enumerate(denied)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERROR | errno.EPERM),
    ]
    return b"".join(struct.pack("<HBBI", *line) for line in lines)
