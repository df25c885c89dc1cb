"""The directory for everything that rammerge keeps: the store, conversions, digests and the servers' databases."""

import os
from pathlib import Path


def home() -> Path:
    """Return the absolute path of `$RAMMERGE_HOME`, or of `~/.cache/rammerge` where that is not set."""
    return Path(os.environ.get("RAMMERGE_HOME") or "~/.cache/rammerge").expanduser().absolute()
