"""Paths as people write them."""

from pathlib import Path

from rammerge.errors import InputError


def expanded(path: str | Path) -> Path:
    """Return the path that a user wrote, with a home directory in place of a leading `~` or `~NAME`.

    Raises:
        InputError: the machine knows no such home directory.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(
            f"{path} begins with a home directory that this machine does not know; write the whole path"
        ) from error


def exists(path: Path, *, follow: bool = True) -> bool:
    """Tell whether something is at `path`. `Path.exists` raises an error for text that is too long for a path.

    Args:
        path: what a user wrote, which need not be a path.
        follow: whether a symbolic link stands for what it points to, which may be missing.
    """
    try:
        path.stat(follow_symlinks=follow)
    except PermissionError:  # something may be there, and whoever opens it says that it may not be read
        return True
    except (OSError, ValueError):
        return False
    return True


def is_directory(path: Path) -> bool:
    """Tell whether a directory is at `path`, as far as this user may look."""
    try:
        return path.is_dir()
    except OSError:
        return False
