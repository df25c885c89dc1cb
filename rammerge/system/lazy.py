"""Torch, imported when one of its attributes is first used.

The import takes about a second. Most commands never need it; a merge whose functions are already compiled does not
either. Modules on their way say `from rammerge.system.lazy import torch` and keep torch's types in annotations only.
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
