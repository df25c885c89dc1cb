"""What a program may use."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of one program, from its start to its last answer.

    Attributes:
        seconds: wall time, after which it is killed. Long, because other work may slow the machine down.
        cpu_seconds: processor time, which does not depend on other work.
        memory: bytes of address space.
        file_bytes: the size of a file; there is no directory that it may write to.
        open_files: the number of open files.
        answer_bytes: the size of one answer; a program that writes more is killed.
    """

    seconds: float = 60.0
    cpu_seconds: int = 5
    memory: int = 512 * 2**20
    file_bytes: int = 2**20
    open_files: int = 32
    answer_bytes: int = 2**20

    def resources(self) -> dict[str, int]:
        """Return the limits that the kernel holds a process to, by their names in Python's `resource`."""
        return {
            "RLIMIT_CPU": self.cpu_seconds,
            "RLIMIT_AS": self.memory,
            "RLIMIT_FSIZE": self.file_bytes,
            "RLIMIT_NOFILE": self.open_files,
            "RLIMIT_NPROC": 0,
            "RLIMIT_CORE": 0,
            "RLIMIT_MEMLOCK": 0,
        }


USUAL = Limits()
