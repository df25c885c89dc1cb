"""Giving a finished model its name: the last rename."""

import shutil
from pathlib import Path

from rammerge.errors import RammergeError
from rammerge.system.atomic import sync
from rammerge.system.exchanging import exchange


def publish(staging: Path, out: Path) -> None:
    """Rename `staging`/model to `out` in one step, in exchange for an existing `out`; then remove `staging`.

    Raises:
        OSError: the disk failed, and `out` is unchanged.
        RammergeError: the disk failed after `out` had become the new model.
    """
    model = staging / "model"
    sync(model)
    if out.exists():
        exchange(model, out)
    else:
        model.rename(out)
    try:
        sync(out.parent)
        shutil.rmtree(staging)
    except OSError as error:
        raise RammergeError(
            f"{out} is complete, but then {error.filename or out.parent} failed ({error.strerror or error}); mend the "
            f"disk, see with `rammerge verify` whether {out} is whole, and remove {staging}"
        ) from error
