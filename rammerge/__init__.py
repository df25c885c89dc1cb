"""Merge reinforcement-learned LLM agents, prove that the merge is better, and promote it.

    import rammerge

    overlap = rammerge.measure_overlap("base", {"tool": "tool", "code": "code"})
    report = rammerge.merge("base", {"tool": "tool", "code": "code"}, method="ram_plus", preset="paper", out="merged")

The names are imported when they are first used, so that `import rammerge` takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rammerge.version import __version__

if TYPE_CHECKING:
    from rammerge.api import (
        load_recipe,
        measure_overlap,
        merge,
        methods,
        open_checkpoint,
        verify,
    )
    from rammerge.checkpoints.checkpoint import Checkpoint
    from rammerge.checkpoints.family import Family
    from rammerge.engine.blocks import Block, Update
    from rammerge.engine.options import MergeOptions
    from rammerge.engine.passes.statistics import Statistics
    from rammerge.errors import InputError, RammergeError
    from rammerge.overlap import Overlap
    from rammerge.patches.packing import PackReport, pack
    from rammerge.patches.series import pack_series
    from rammerge.patches.unpacking import unpack
    from rammerge.publishing.making import merge_together
    from rammerge.publishing.manifest import Manifest
    from rammerge.publishing.report import MergeReport, Trial
    from rammerge.rules import Method, Params, resolve

_HOMES = {
    "rammerge.api": ("load_recipe", "measure_overlap", "merge", "methods", "open_checkpoint", "verify"),
    "rammerge.checkpoints.checkpoint": ("Checkpoint",),
    "rammerge.checkpoints.family": ("Family",),
    "rammerge.engine.blocks": ("Block", "Update"),
    "rammerge.engine.options": ("MergeOptions",),
    "rammerge.engine.passes.statistics": ("Statistics",),
    "rammerge.errors": ("InputError", "RammergeError"),
    "rammerge.rules": ("Method", "Params", "resolve"),
    "rammerge.overlap": ("Overlap",),
    "rammerge.publishing.making": ("merge_together",),
    "rammerge.publishing.report": ("MergeReport", "Trial"),
    "rammerge.publishing.manifest": ("Manifest",),
    "rammerge.patches.packing": ("PackReport", "pack"),
    "rammerge.patches.series": ("pack_series",),
    "rammerge.patches.unpacking": ("unpack",),
}

__all__ = [
    "Block",
    "Checkpoint",
    "Family",
    "InputError",
    "Manifest",
    "MergeOptions",
    "MergeReport",
    "Method",
    "Overlap",
    "PackReport",
    "Params",
    "RammergeError",
    "Statistics",
    "Trial",
    "Update",
    "__version__",
    "load_recipe",
    "measure_overlap",
    "merge",
    "merge_together",
    "methods",
    "open_checkpoint",
    "pack",
    "pack_series",
    "resolve",
    "unpack",
    "verify",
]


def __getattr__(name: str) -> Any:
    home = next((module for module, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module 'rammerge' has no attribute '{name}'")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
