"""Torch, imported when its first attribute is asked for.

Importing it takes a second, which most commands can do without: a merge, too, whose functions are compiled already.
Modules that those go through say `from rammerge.system.lazy import torch`, and are annotated by name only.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch as torch
else:

    class _Torch:
        def __getattr__(self, name: str) -> Any:
            value = getattr(import_module("torch"), name)
            setattr(self, name, value)
            return value

    torch = _Torch()
