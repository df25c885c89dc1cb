"""Checking before any work that a model can be written where the user wants it."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

from rammerge.errors import InputError
from rammerge.system.reading import refuse_os_error
from rammerge.system.space import require_space


def check_output(out: Path, *, force: bool, needed_bytes: int, inputs: Iterable[Path] = ()) -> None:
    """Check that `needed_bytes` can be written to the new directory `out`, without leaving anything behind.

    Args:
        out: the directory to make.
        force: whether an existing `out` may be replaced.
        needed_bytes: the size of the model.
        inputs: directories that must survive. `out` may not be one of them or contain one.

    Raises:
        InputError: `out` exists and `force` is false, would replace an input, cannot be written, or does not fit.
    """
    out = out.expanduser().absolute()
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
    require_space(
        parent, needed_bytes, what=f"output {out}", where="the disk", fix="make room or choose a different disk"
    )


def _check_writable(out: Path, parent: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=parent):  # the only test that is also right for root and for read-only mounts
            pass
    except OSError as error:
        raise InputError(
            f"output {out} cannot be written ({parent}: {error.strerror}); choose a directory that you may write"
        ) from error
