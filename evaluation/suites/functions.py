"""Functions that a suite's files name: where their code lies, and importing it as it is on the disk now."""

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.suites.imports import with_bundled
from rammerge.errors import InputError


@dataclass(frozen=True)
class FunctionReference:
    """`!function module.name`: a function of a module beside the task file, else of an installed one."""

    folder: Path
    module: str
    name: str

    @property
    def file(self) -> Path | None:
        """The module's file: beside the task file, else of an installed module; None if there is none."""
        beside = self.folder / f"{self.module.replace('.', '/')}.py"
        if beside.is_file():
            return beside
        try:
            spec = importlib.util.find_spec(self.module)
        except (ImportError, ValueError):
            return None
        return Path(spec.origin) if spec is not None and spec.has_location and spec.origin else None

    @property
    def files(self) -> set[Path]:
        """The module's file, and those of bundled suites whose code it uses."""
        return set() if self.file is None else with_bundled(self.file)

    def load(self) -> Callable[..., Any]:
        """Import the module as it is on disk now and return the function.

        Raises:
            InputError: the module cannot be imported, or has no function of that name.
        """
        try:
            beside = self.folder / f"{self.module.replace('.', '/')}.py"
            module = _import_file(beside) if beside.is_file() else importlib.import_module(self.module)
            function: Callable[..., Any] = getattr(module, self.name)
        except (Exception, SystemExit) as error:  # the suite's own code runs here and may raise anything
            function_name = f"{self.module}.{self.name}"
            raise InputError(
                f"a file in {self.folder} names the function '{function_name}', which cannot be imported: {error}"
            ) from error
        if not callable(function):
            raise InputError(
                f"a file in {self.folder} names the function '{self.module}.{self.name}', which is {function!r}; "
                f"give a function"
            )
        return function


def _import_file(file: Path) -> Any:
    """Import `file` under a name made of its content: an edited file is a different module, the same runs only once."""
    content = file.read_bytes()
    digest = hashlib.sha256(str(file).encode() + b"\0" + content).hexdigest()
    name = f"rammerge_suite_{digest[:16]}_{file.stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, file)
        if spec is None:
            raise ImportError(f"{file} is not a Python module")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look their module up by name while it is being imported
        try:
            # Not by the loader: it may have kept the bytecode of a file of the same size from the same second.
            exec(compile(content, file, "exec"), vars(module))
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]
