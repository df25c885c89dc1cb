"""Block functions compiled ahead of time by torch's inductor, kept on disk if they give the same bytes.

A compiled function fuses reading, masking, merging, casting and counting into one loop: over ten times faster than
eager code on a CPU. It is made once for a machine by a process of its own (rammerge.engine.compiling.build), so that
neither the merge's memory nor its threads take part, and loads in milliseconds afterwards, without torch. A merge that
has to wait for one begins eagerly and changes over when it is ready: both give the same bytes.
"""

import hashlib
import importlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from operator import attrgetter
from pathlib import Path
from typing import Any

from rammerge.engine.blocks import BlockFunction
from rammerge.engine.compiling.loop import TileLoop, loop_path
from rammerge.numerics.dtypes import DTYPES, DType
from rammerge.system.home import home
from rammerge.system.plugins import code_digest

_CODE = (
    "rammerge.numerics.dtypes",
    "rammerge.numerics.masks",
    "rammerge.numerics.randomness",
    "rammerge.numerics.rounding",
    "rammerge.engine.blocks",
    "rammerge.engine.compiling.build",
    "rammerge.engine.compiling.cache",
    "rammerge.engine.compiling.loop",
)


@dataclass(frozen=True)
class Signature:
    """What a compiled form is made for: the function and the dtypes and number of its inputs."""

    function: BlockFunction
    base: DType
    agents: tuple[DType, ...]
    rows: int

    def describe(self) -> dict[str, Any]:
        """Return everything that decides the compiled code, but code and machine, as JSON."""
        names = {"base": self.base.name, "agents": [dtype.name for dtype in self.agents], "rows": self.rows}
        return {"function": _describe(self.function), **names}

    @property
    def in_place(self) -> bool:
        """Whether the function is to write its tensors where the caller wants them, with none in between.

        Inductor does so without a copy, but computes them in a loop apart from the counts: not for what has both.
        """
        return self.function.counts(len(self.agents)) == 0

    def results(self) -> list[DType]:
        """Return the dtypes of the tensors that the function makes."""
        return self.function.results(len(self.agents))

    @classmethod
    def read(cls, described: dict[str, Any]) -> "Signature":
        """Return the signature that `describe` gave."""
        function: BlockFunction = _read(described["function"])
        agents = tuple(DTYPES[name] for name in described["agents"])
        return cls(function, DTYPES[described["base"]], agents, described["rows"])

    def path(self) -> Path:
        """Return where the compiled form is kept; code, torch and the processor's instruction set are in its name."""
        digest = hashlib.sha256(json.dumps(self.describe(), sort_keys=True).encode())
        for module in [*_CODE, *_modules(self.function)]:
            spec = importlib.util.find_spec(module)
            assert spec is not None, module
            digest.update(Path(str(spec.origin)).read_bytes())
        own = [code for code in _codes(self.function) if code.__module__.partition(".")[0] != "rammerge"]
        digest.update((code_digest(*own) if own else "").encode())
        digest.update(processor_digest().encode())
        return home() / "kernels" / f"{digest.hexdigest()[:32]}.so"


def _describe(function: BlockFunction) -> dict[str, Any]:
    """Return a block function as JSON: where its class is defined, and its fields, which may be functions too."""
    fields: dict[str, Any] = vars(function)
    values = {name: {"code": _place(value)} if callable(value) else value for name, value in fields.items()}
    return {"code": _place(type(function)), "fields": values}


def _read(described: dict[str, Any]) -> Any:
    fields = described["fields"].items()
    values = {name: _find(value["code"]) if isinstance(value, dict) else value for name, value in fields}
    return _find(described["code"])(**values)


def is_portable(function: BlockFunction) -> bool:
    """Tell whether another process finds the code of a block function: not what a script or a notebook defines."""
    try:
        return all(code.__module__ != "__main__" and _find(_place(code)) is code for code in _codes(function))
    except (ImportError, AttributeError):
        return False


def _codes(function: BlockFunction) -> list[Any]:
    """Return the class of a block function and the functions that it calls by its fields."""
    fields: dict[str, Any] = vars(function)
    return [type(function), *filter(callable, fields.values())]


def _modules(function: BlockFunction) -> list[str]:
    return sorted({code.__module__ for code in _codes(function)})


def _place(code: Any) -> str:
    return f"{code.__module__}:{code.__qualname__}"


def _find(place: str) -> Any:
    module, _, name = place.partition(":")
    return attrgetter(name)(importlib.import_module(module))


def compiler() -> str | None:
    """Return the C++ compiler that would be used, or None when the machine has none."""
    return next(
        (found for name in (os.environ.get("CXX"), "g++", "clang++") if name and (found := shutil.which(name))), None
    )


def load(signature: Signature, threads: int = 1) -> TileLoop | None:
    """Return the compiled form, for so many threads at a time, when it is on disk and loads here."""
    path = signature.path()
    if not path.is_file() or not loop_path().is_file():
        return None
    try:
        return TileLoop(path, signature.results(), threads, in_place=signature.in_place)
    except (OSError, AttributeError, RuntimeError):
        path.unlink(missing_ok=True)
        loop_path().unlink(missing_ok=True)
        return None


def start_build(signature: Signature) -> subprocess.Popen[bytes]:
    """Start to compile in a process of its own; `load` finds the result once it has ended with 0."""
    path = signature.path()
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "rammerge.engine.compiling.build", json.dumps(signature.describe()), str(path)]
    # A method of the user's own may be in a directory that only this process looks into.
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "OMP_NUM_THREADS": "1",
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
    }
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def processor_digest() -> str:
    """Return what stands for torch and the processor's instruction set, on which compiled code depends."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(f"{version('torch')} {platform.machine()} {flags}".encode()).hexdigest()[:16]
