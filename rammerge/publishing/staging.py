"""The directory in which a merge is prepared, and what a run that was killed leaves there for the next one."""

import errno
import json
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rammerge.engine.passes.statistics import Statistics
from rammerge.errors import InputError, RammergeError, out_of_space
from rammerge.rules import Rule
from rammerge.system.atomic import write_json
from rammerge.system.locks import try_locked

_NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK}
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}
_IDENTITY, _STATISTICS = "identity.json", "statistics.json"


def staging_directory(out: Path) -> Path:
    """Return the directory in which a merge into `out` is prepared. It is beside `out`, on the same disk.

    Its `model` becomes `out` by a rename. The records that a later run needs to resume are next to `model`.
    """
    return out.parent / f".{out.name}.partial"


@contextmanager
def locked_staging(out: Path, kept: str = ": the finished shards are kept") -> Iterator[Path]:
    """Lock the staging directory of `out`, which is made if missing. The kernel frees the lock when this process ends.

    Args:
        out: the directory to make.
        kept: what the message of a failed disk says about the work so far.

    Raises:
        InputError: another process is writing to `out`.
        RammergeError: the disk is full or failed, here or within the context.
    """
    staging = staging_directory(out)
    with ExitStack() as stack:
        try:
            stack.enter_context(try_locked(out.parent / f".{out.name}.lock"))
        except BlockingIOError as error:
            raise InputError(
                f"another process is writing to {out}; wait for it or choose a different output"
            ) from error
        except OSError as error:
            if error.errno in _NO_LOCKS:
                raise InputError(
                    f"{out.parent} is on a file system without locks ({error.strerror}); mount it with them "
                    "(Lustre's option is `flock`) or choose a different disk"
                ) from error
            raise _disk_error(staging, error, kept) from error
        try:
            staging.mkdir(exist_ok=True)
            yield staging
        except InputError:  # bad input stays bad, so a later run has nothing to resume
            shutil.rmtree(staging, ignore_errors=True)  # gone if the model has its name, and others beside it failed
            raise
        except OSError as error:
            raise _disk_error(staging, error, kept) from error


def _disk_error(staging: Path, error: OSError, kept: str) -> RammergeError:
    if out_of_space(error):
        what, fix = f"no space left in {staging.parent}", "make room and run again"
    else:
        what, fix = f"{error.filename or staging} failed ({error.strerror or error})", "mend the disk and run again"
    return RammergeError(f"{what}; {fix}{kept}")


def take_up(staging: Path, identity: Mapping[str, Any]) -> None:
    """Leave in `staging` only what an earlier run with the same identity finished."""
    if _read_json(staging / _IDENTITY) != identity:
        keep_only(staging, ())
        write_json(staging / _IDENTITY, identity)
    for name in ("model", "records"):
        (staging / name).mkdir(exist_ok=True)


def add_part(staging: Path, part: Path) -> None:
    """Add to a staging directory what is in that of a part of the same merge: finished shards, and the statistics.

    `take_up` then removes what is of a merge with a different identity.
    """
    for file in [part / _IDENTITY, part / _STATISTICS, *part.glob("records/*"), *part.glob("model/*.safetensors")]:
        place = staging / file.relative_to(part)
        if file.exists() and not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            _link(file, place)


def _link(file: Path, place: Path) -> None:
    try:
        place.hardlink_to(file)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        shutil.copyfile(file, place)


def recall_statistics(staging: Path, rule: Rule) -> Statistics | None:
    """Return the statistics that an earlier run made for `rule`, if it got that far."""
    try:
        return Statistics.from_json(rule.passes, _read_json(staging / _STATISTICS))
    except (KeyError, TypeError, ValueError):
        return None


def remember_statistics(staging: Path, rule: Rule, statistics: Statistics) -> None:
    """Keep the statistics made for `rule` for the next run if this one is killed."""
    write_json(staging / _STATISTICS, statistics.to_json(rule.passes))


def still_needed(out: Path, size: int) -> int:
    """Return how many bytes a merge into `out` has yet to find room for, when its files take `size` while it works."""
    staging = staging_directory(out)
    files = [*staging.glob("model/*"), *staging.glob("updates/*")]
    present = sum(file.stat().st_blocks * 512 for file in files)
    return max(0, size - present) + (1 << 20)


def keep_only(directory: Path, names: Collection[str]) -> None:
    """Remove everything from `directory` but `names`."""
    for entry in directory.iterdir():
        if entry.name in names:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
