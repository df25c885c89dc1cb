"""Opening files that strangers made: only regular files, without blocking, with the size known before any read."""

import errno
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rammerge.errors import InputError
from rammerge.system.paths import exists

if TYPE_CHECKING:
    from yaml import SafeLoader

# No tokenizer.json or index file in use is as large as this.
MAX_JSON_BYTES = 256 * 1024 * 1024

_REASONS = {
    errno.ENOENT: "does not exist; check the path",
    errno.ENOTDIR: "does not exist (a part of its path is a file); check the path",
    errno.EACCES: "may not be read by this user; change its permissions",
    errno.EPERM: "may not be read by this user; change its permissions",
    errno.ELOOP: "is a loop of symbolic links; link it to the real file",
    errno.ENAMETOOLONG: "is too long for a path; check the path",
}


def refuse_os_error(path: Path, error: OSError | ValueError) -> InputError:
    """Return an InputError that says in one sentence what the system reported about `path`."""
    number = error.errno if isinstance(error, OSError) else None
    if number in _REASONS:
        return InputError(f"{path} {_REASONS[number]}")
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return InputError(f"{path} cannot be read ({said}); check the path and the disk")


def stat_file(path: Path) -> os.stat_result:
    """Return the status of the regular file `path`, links followed; refuse fifos, devices, directories and loops."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise refuse_os_error(path, error) from error
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path} is {_kind(status.st_mode)}, not a regular file; replace it with the file itself")
    return status


def list_directory(path: Path) -> list[os.DirEntry[str]]:
    """Return the entries of the directory `path` sorted by name; InputError when it is not a readable directory."""
    try:
        with os.scandir(path) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except (OSError, ValueError) as error:
        if isinstance(error, NotADirectoryError) and path.exists():
            raise InputError(f"{path} is a file; give the checkpoint directory that holds it") from error
        raise refuse_os_error(path, error) from error


@contextmanager
def open_regular(path: Path) -> Iterator[tuple[int, int]]:
    """Yield (file descriptor, size in bytes) of the regular file `path`.

    The kind of file is checked twice: before opening, because opening a device can act on it, and after, because the
    name may point to another file by then. O_NONBLOCK keeps a fifo that appears in between from blocking.
    """
    stat_file(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise refuse_os_error(path, error) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path} is {_kind(status.st_mode)}, not a regular file; replace it with the file itself")
        yield descriptor, status.st_size
    finally:
        os.close(descriptor)


@contextmanager
def opened(paths: Iterable[Path]) -> Iterator[Callable[[Path, int, memoryview], None]]:
    """Open regular files; yield a function that fills memory from an offset of one, also from several threads."""
    with ExitStack() as stack:
        descriptors = {path: stack.enter_context(open_regular(path))[0] for path in dict.fromkeys(paths)}
        yield lambda path, offset, memory: fill(descriptors[path], memory, offset, path)


def read_exactly(descriptor: int, size: int, offset: int, path: Path) -> bytearray:
    """Return the `size` bytes at `offset` of the open file `path`; InputError if the file is too short."""
    content = bytearray(size)
    fill(descriptor, memoryview(content), offset, path)
    return content


def read_start(path: Path, most: int) -> bytes:
    """Return the first `most` bytes of the regular file `path`, or all if it has fewer."""
    with open_regular(path) as (descriptor, size):
        return bytes(read_exactly(descriptor, min(size, most), 0, path))


def fill(descriptor: int, memory: memoryview, offset: int, path: Path) -> None:
    """Fill `memory` with the bytes at `offset` of the open file `path`; InputError if the file is too short."""
    try:
        count = read_into(descriptor, memory, offset)
    except OSError as error:
        raise refuse_os_error(path, error) from error
    if count < len(memory):
        raise InputError(f"{path} became shorter while it was read; wait until it is completely written")


def read_into(descriptor: int, memory: memoryview, offset: int) -> int:
    """Read from `offset` of an open file until `memory` is full or the file ends, and return how many bytes there were.

    Raises:
        OSError: the file cannot be read.
    """
    done = 0
    while done < len(memory) and (count := os.preadv(descriptor, [memory[done:]], offset + done)):
        done += count
    return done


def read_json_object(path: Path, *, unique_keys: bool = False) -> dict[str, Any]:
    """Return the JSON object in the file `path`; InputError when the file holds anything else."""
    with open_regular(path) as (descriptor, size):
        if size > MAX_JSON_BYTES:
            raise InputError(f"{path} is too long for JSON ({size} bytes); download or save it again")
        content = read_exactly(descriptor, size, 0, path)
    return parse_json_object(content, str(path), unique_keys=unique_keys)


def parse_json_object(content: bytes | bytearray, what: str, *, unique_keys: bool = False) -> dict[str, Any]:
    """Return the JSON object in `content`. Messages call it `what`; `unique_keys` refuses a key that occurs twice."""
    try:
        value = json.loads(content.decode("utf-8"), object_pairs_hook=_refuse_duplicates if unique_keys else None)
    except (ValueError, RecursionError) as error:
        detail = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InputError(f"{what} is not valid JSON ({detail}); download or save it again") from error
    if not isinstance(value, dict):
        raise InputError(f"{what} holds a JSON {type(value).__name__} instead of an object; download or save it again")
    return value


def read_yaml(file: Path, loader: "type[SafeLoader]") -> Any:
    """Return what a YAML file holds; InputError if it cannot be read or is not YAML."""
    import yaml

    text = read_text(file)
    try:
        return yaml.load(text, loader)
    except yaml.YAMLError as error:
        raise InputError(f"{file} is not valid YAML: {' '.join(str(error).split())}") from None
    except (RecursionError, ValueError):
        raise InputError(
            f"{file} is not valid YAML: nested too deeply, or a number or date that does not exist"
        ) from None


def read_text(file: Path) -> str:
    """Return the text of a regular file; InputError if it cannot be read or is not UTF-8."""
    if exists(file):
        stat_file(file)  # refuses what would block, or act, when it is opened
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{file} is not UTF-8 text; save it as UTF-8") from None
    except (OSError, ValueError) as error:  # ValueError: the name has a zero byte
        raise refuse_os_error(file, error) from None


def quote(value: Any) -> str:
    """Return `value`, which comes from a file, escaped and shortened to fit into one line of a message."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for key, value in pairs:
        if key in seen:
            raise ValueError(f"the key {quote(key)} occurs twice")
        seen[key] = value
    return seen


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a fifo",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
    }
    return kinds.get(stat.S_IFMT(mode), "a special file")
