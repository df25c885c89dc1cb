"""Sandlock: a process held by Landlock and seccomp, where a machine forbids namespaces.

It sees only the files that it may read, reaches no network and signals nobody outside. Unlike in namespaces, it sees
that other files and processes exist.
"""

import importlib.util
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any

from evaluation.sandbox.interpreter import Interpreter
from evaluation.sandbox.seccomp import denied_calls

# Calls that it decides on by itself: it counts processes, and refuses to connect sockets.
_ITS_OWN = {"clone", "fork", "vfork", "socket"}


class Sandlock:
    """The package `sandlock`."""

    name = "sandlock"

    @property
    def version(self) -> str:
        """The version of the package."""
        return version("sandlock")

    def start(self, arguments: Sequence[str]) -> Any:
        """Start the interpreter with `arguments`. To kill what this returns kills everything in the sandbox."""
        import sandlock
        from sandlock.sandbox import StdioMode

        interpreter = Interpreter.current()
        readable = [str(path) for path in (*interpreter.system, *interpreter.libraries, interpreter.executable)]
        sandbox = sandlock.Sandbox(
            fs_readable=[*readable, "/dev/urandom"],
            fs_writable=["/dev/null"],
            fs_denied=[str(interpreter.packages)],
            extra_deny_syscalls=[name for name in denied_calls() if name not in _ITS_OWN],
            max_processes=1,
            clean_env=True,
            no_coredump=True,
            cwd="/",
        )
        command = [str(interpreter.executable), *arguments]
        return sandbox.popen(command, stdin=StdioMode.PIPED, stdout=StdioMode.PIPED, stderr=StdioMode.NULL)

    def complaint(self) -> str:
        """Return nothing: it raises what it has to say."""
        return ""


def candidates() -> Iterator[Sandlock]:
    """Yield it, if the package is installed."""
    if importlib.util.find_spec("sandlock") is not None:
        yield Sandlock()
