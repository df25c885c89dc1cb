"""Where rammerge keeps what it makes by itself: stores, downloads, digests and the servers' databases."""

import os
from pathlib import Path


def home() -> Path:
    """Return the absolute root of rammerge's own files: `$RAMMERGE_HOME`, else `~/.cache/rammerge`."""
    return Path(os.environ.get("RAMMERGE_HOME") or "~/.cache/rammerge").expanduser().absolute()
