"""What a compiled form is made for, and the name under which it is kept."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rammerge.engine.blocks import Arguments, BlockFunction, averaged
from rammerge.errors import RammergeError
from rammerge.numerics.dtypes import DTYPES, DType
from rammerge.system.home import home
from rammerge.system.reached import digest_files, reached_files
from rammerge.system.toolchain import processor

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Signature:
    """What a compiled form is made for: the function, and the dtypes and number of its inputs.

    Attributes:
        function: the block function.
        base: dtype of the base's elements.
        agents: dtypes of the elements of each agent, or of each member of a group.
        rows: how many rows of coefficients the function reads.
        groups: how many of `agents` are members of each agent; empty if they are the agents.
        by_rows: whether the function needs whole rows.
    """

    function: BlockFunction
    base: DType
    agents: tuple[DType, ...]
    rows: int
    groups: tuple[int, ...] = ()
    by_rows: bool = False

    @property
    def merged(self) -> int:
        """How many agents the function gets."""
        return len(self.groups or self.agents)

    def run(self, base: Tensor, agents: Sequence[Tensor], arguments: Arguments) -> tuple[list[Tensor], Tensor]:
        """Return what the function makes of the stored elements."""
        return self.function(base, averaged(base, agents, self.groups) if self.groups else agents, arguments)

    def results(self) -> list[DType]:
        """Return the dtypes of the tensors that the function makes."""
        return self.function.results(self.merged)

    def describe(self) -> str:
        """Return everything, as JSON.

        Raises:
            RammergeError: the function has a field that another process cannot find by its name.
        """
        inputs = {"base": self.base.name, "agents": [dtype.name for dtype in self.agents], "rows": self.rows}
        inputs |= {"groups": list(self.groups), "by_rows": self.by_rows}
        fields = {name: {"code": _place(value)} if callable(value) else value for name, value in self._fields.items()}
        return json.dumps({"code": _place(type(self.function)), "fields": fields, **inputs}, sort_keys=True)

    @classmethod
    def read(cls, description: str) -> Signature:
        """Return the signature that `describe` described."""
        described = json.loads(description)
        fields = described["fields"].items()
        values = {name: _find(value["code"]) if isinstance(value, dict) else value for name, value in fields}
        function: BlockFunction = _find(described["code"])(**values)
        agents = tuple(DTYPES[name] for name in described["agents"])
        groups, by_rows = tuple(described["groups"]), described["by_rows"]
        return cls(function, DTYPES[described["base"]], agents, described["rows"], groups, by_rows)

    def path(self) -> Path:
        """Return where the compiled form is kept. All that decides the machine code decides the name.

        Raises:
            RammergeError: as `describe`.
        """
        digest = hashlib.sha256("\0".join((self.describe(), _digest(self._modules), _machine())).encode())
        return home() / "kernels" / f"{digest.hexdigest()[:32]}.so"

    def files(self) -> set[Path]:
        """Return the files whose code decides the machine code: of what the function reaches, and of this package."""
        return _files(self._modules)

    @property
    def _modules(self) -> frozenset[str]:
        codes = (type(self.function), *filter(callable, self._fields.values()))
        return frozenset(code.__module__ for code in codes)

    @property
    def _fields(self) -> dict[str, Any]:
        return vars(self.function)


def _files(modules: frozenset[str]) -> set[Path]:
    return reached_files(modules) | {file for file in Path(__file__).parent.iterdir() if file.is_file()}


@cache
def _digest(modules: frozenset[str]) -> str:
    return digest_files(_files(modules))


@cache
def _machine() -> str:
    """Return text that identifies torch's version and the processor's instruction set."""
    return f"{version('torch')} {processor()}"


def _place(code: Any) -> str:
    """Return where a class or function is found.

    Raises:
        RammergeError: nothing finds it there, because it is a lambda, or defined in a function or a notebook.
    """
    place = f"{code.__module__}:{code.__qualname__}"
    try:
        if code.__module__ != "__main__" and _find(place) is code:
            return place
    except (ImportError, AttributeError):
        pass
    raise RammergeError(f"{place} is not defined at the top of a module")


def _find(place: str) -> Any:
    module, _, name = place.partition(":")
    return attrgetter(name)(importlib.import_module(module))
