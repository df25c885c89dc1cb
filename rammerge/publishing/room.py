"""Checking before any work that a model can be written where the user wants it."""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rammerge.errors import InputError
from rammerge.system.paths import expanded
from rammerge.system.reading import refuse_os_error
from rammerge.system.space import require_space


def check_output(out: Path, *, force: bool, needed_bytes: int, inputs: Iterable[Path] = ()) -> None:
    """Check that `needed_bytes` can be written to the new directory `out`; see `check_outputs`."""
    check_outputs({out: needed_bytes}, force=force, inputs=inputs)


def check_outputs(needed: Mapping[Path, int], *, force: bool, inputs: Iterable[Path] = ()) -> None:
    """Check that new directories can be written, without leaving anything behind.

    Args:
        needed: the bytes that each will take, by directory to make.
        force: whether existing ones may be replaced.
        inputs: directories that must survive. No output may be one of them or contain one.

    Raises:
        InputError: an output exists and `force` is false, would replace an input, cannot be written, or does not fit.
    """
    kept, of_disk = list(inputs), dict[int, int]()
    for out, nbytes in needed.items():
        parent = _check_place(out, kept, force=force)
        disk = parent.stat().st_dev
        of_disk[disk] = of_disk.get(disk, 0) + nbytes
        others = f" with {len(needed) - 1} others" if len(needed) > 1 else ""
        fix = "make room or choose a different disk"
        require_space(parent, of_disk[disk], what=f"output {out}{others}", where="the disk", fix=fix)


def _check_place(out: Path, inputs: Sequence[Path], *, force: bool) -> Path:
    """Return the nearest directory above an output that exists and can be written."""
    out = expanded(out).absolute()
    try:
        exists = out.exists() or out.is_symlink()
        resolved = out.resolve()
        for path in [*inputs, Path.cwd(), Path.home()]:
            if path.resolve().is_relative_to(resolved):
                raise InputError(
                    f"output {out} contains {path}, which must not be replaced; choose a different directory"
                )
        if exists and not force:
            raise InputError(f"output {out} exists; choose a different directory or replace it with --force")
        if exists and not out.is_dir():
            raise InputError(f"output {out} exists and is not a directory; choose a different directory")
        parent = next(parent for parent in resolved.parents if parent.exists())
    except (OSError, RuntimeError, ValueError) as error:
        raise refuse_os_error(out, error if isinstance(error, OSError) else ValueError(str(error))) from error
    _check_writable(out, parent)
    return parent


def _check_writable(out: Path, parent: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=parent):  # the only test that is also right for root and for read-only mounts
            pass
    except OSError as error:
        raise InputError(
            f"output {out} cannot be written ({parent}: {error.strerror}); choose a directory that you may write"
        ) from error
