"""A directory that machines share, such as one on NFS.

It relies on what NFS promises: a rename and a link are atomic, and whoever opens a file after its writer has closed it
sees what was written. Locks only save work. Without them two machines do the same work, and one of them publishes it.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from rammerge.storage.stored import Stored
from rammerge.storage.trouble import PlaceError
from rammerge.system.home import this_home
from rammerge.system.locks import locked

_BLOCK = 8 << 20
_LOCKS = ".locks"


class Directory:
    """Objects as files below a directory. See `rammerge.storage.place.Place` for the methods."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def url(self) -> str:
        """The directory."""
        return str(self._root)

    def require(self) -> None:
        """Raise PlaceError unless the directory exists."""
        if not self._root.is_dir():
            raise PlaceError(f"the shared store {self.url} is not a directory; make it, or check whether it is mounted")

    def size(self, name: str) -> int | None:
        """Return the bytes of an object, or None if there is none."""
        with self._explained():
            try:
                return (self._root / name).stat().st_size
            except FileNotFoundError:
                return None

    def read(self, name: str) -> bytes | None:
        """Return the content of a small object, or None if there is none."""
        with self._explained():
            try:
                return (self._root / name).read_bytes()
            except FileNotFoundError:
                return None

    def get(self, name: str, file: Path) -> bool:
        """Append to `file` what it lacks of an object; return whether there is one."""
        with self._explained(), ExitStack() as files:
            try:
                source = files.enter_context((self._root / name).open("rb"))
            except FileNotFoundError:
                return False
            target = files.enter_context(file.open("ab"))
            source.seek(target.tell())
            _copy(source, target)
        return True

    def put(self, name: str, file: Path) -> None:
        """Make an object of a file, going on where a killed attempt of this home has ended."""
        final = self._root / name
        partial = final.with_name(f".{final.name}.{this_home()}")
        with self._explained():
            final.parent.mkdir(parents=True, exist_ok=True)
            with file.open("rb") as source, partial.open("a+b") as target:
                begun = _equal_bytes(source, target)
                target.truncate(begun)
                source.seek(begun)
                _copy(source, target)
                os.fsync(target.fileno())
            partial.replace(final)

    def create(self, name: str, content: bytes) -> bool:
        """Make a small object unless there is one; return whether it has this content."""
        final = self._root / name
        with self._explained():
            final.parent.mkdir(parents=True, exist_ok=True)
            descriptor, written = tempfile.mkstemp(dir=final.parent, prefix=f".{final.name}.")
            beside = Path(written)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                beside.chmod(0o644)
                with suppress(FileExistsError):
                    final.hardlink_to(beside)
                # NFS may repeat a request whose answer was lost, and then says that the link, its own, exists.
                return beside.stat().st_nlink > 1 or final.read_bytes() == content
            finally:
                beside.unlink()

    def list(self, prefix: str) -> Iterator[Stored]:
        """Yield the objects whose names begin with `prefix`."""
        with self._explained():
            for directory, _, files in sorted(os.walk(self._root / prefix, onerror=_unless_removed)):
                for file in (Path(directory, name) for name in sorted(files)):
                    name = file.relative_to(self._root).as_posix()
                    with suppress(FileNotFoundError):
                        status = file.stat()
                        if file.is_file() and not name.startswith(_LOCKS):
                            yield Stored(name, status.st_size, status.st_mtime)

    def delete(self, name: str) -> None:
        """Remove an object, if it is there, and its directory if that is empty then."""
        with self._explained():
            (self._root / name).unlink(missing_ok=True)
            with suppress(OSError):
                (self._root / name).parent.rmdir()

    def sweep(self, prefix: str, before: float) -> None:
        """Remove lock files that nobody holds. Uploads that were never finished are listed like other objects."""
        with self._explained():
            for file in (self._root / _LOCKS / prefix).rglob("*"):
                with suppress(FileNotFoundError, BlockingIOError):
                    if file.is_file() and file.stat().st_mtime < before:
                        with locked(file, wait=False):
                            file.unlink()

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Hold a lock file, which the kernel, and on NFS the server, frees however its holder ends."""
        with ExitStack() as held:
            with suppress(OSError):  # a mount without locks, or one that cannot be written to
                held.enter_context(locked(self._root / _LOCKS / name))
            yield

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            raise PlaceError(f"the shared store {self.url} cannot be used ({reason}); check the mount") from error


def _unless_removed(error: OSError) -> None:
    """Raise what keeps a directory from being listed, unless others have removed it meanwhile."""
    if not isinstance(error, FileNotFoundError):
        raise error


def _equal_bytes(source: IO[bytes], target: IO[bytes]) -> int:
    """Return after how many bytes, in whole blocks, two files differ or one of them ends."""
    equal = 0
    target.seek(0)
    while (block := target.read(_BLOCK)) and source.read(len(block)) == block:
        equal += len(block)
    return equal


def _copy(source: IO[bytes], target: IO[bytes]) -> None:
    while block := source.read(_BLOCK):
        target.write(block)
    target.flush()
