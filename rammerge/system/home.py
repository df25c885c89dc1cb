"""The directory for everything that rammerge keeps: the store, conversions, digests and the servers' databases."""

import hashlib
import os
from pathlib import Path

from rammerge.system.paths import expanded


def home() -> Path:
    """Return the absolute path of `$RAMMERGE_HOME`, or of `~/.cache/rammerge` where that is not set."""
    return expanded(os.environ.get("RAMMERGE_HOME") or "~/.cache/rammerge").absolute()


def this_home() -> str:
    """Return a name for this home on this machine, 12 hex digits: the same one in each of its processes."""
    return hashlib.sha256(f"{os.uname().nodename}:{home()}".encode()).hexdigest()[:12]
