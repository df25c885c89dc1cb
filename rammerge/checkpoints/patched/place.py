"""The files of a patch, for those who recognize one without reading it."""

from pathlib import Path

# The container. The companions of the agent are beside it, its config.json among them.
FILE = "patch.safetensors"
CONFIG = "config.json"


def is_patch(directory: Path) -> bool:
    """Return whether `directory` contains a patch."""
    return (directory / FILE).is_file()
