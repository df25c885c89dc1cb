"""The files that code comes from, and their digest: a module's, and those of all modules that it imports."""

import ast
import hashlib
import importlib.util
import secrets
import sys
import sysconfig
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from rammerge.system.neighbours import PACKAGES

_WITH_STATEMENTS = (ast.stmt, ast.ExceptHandler, ast.match_case)
_INSTALLED = tuple(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib"))


def code_digest(*objects: Any) -> str:
    """Return the SHA-256 of the code that functions, classes or instances of the user's own run.

    It covers the files that their modules reach, except rammerge's own: cache keys contain versions of those. Code
    without a file, as in a notebook, has a new digest each time: nothing can tell whether it is still the same.
    """
    modules = {getattr(each, "__module__", None) or type(each).__module__ for each in objects}
    if any(_file(name) is None for name in modules):
        return secrets.token_hex(32)
    return digest_files(reached_files(modules, without=PACKAGES))


def digest_files(files: Iterable[Path]) -> str:
    """Return the SHA-256 of the content of `files`. Their names and places do not count."""
    digests = sorted(hashlib.sha256(file.read_bytes()).digest() for file in files)
    return hashlib.sha256(b"".join(digests)).hexdigest()


def reached_files(modules: Iterable[str], *, without: Collection[str] = ()) -> set[Path]:
    """Return the files of modules and of what they import, at their top or in their functions.

    The standard library and installed packages are left out, except the packages that `modules` are in; and so are the
    packages `without`, and what is imported for type checking alone.
    """
    pending, seen, files = list(modules), set[str](), set[Path]()
    own = {_package(name) for name in pending}
    while pending:
        name = pending.pop()
        package = _package(name)
        if name in seen or package in without or not (package in own or _is_source(_file(package))):
            continue
        seen.add(name)
        file = _file(name)
        if file is not None:
            files.add(file)
            pending.extend(_imports(ast.parse(file.read_bytes()), name if file.stem == "__init__" else _parent(name)))
    return files


def _package(name: str) -> str:
    return name.partition(".")[0]


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


def _is_source(file: Path | None) -> bool:
    return file is not None and not any(file.is_relative_to(root) for root in _INSTALLED)


def _file(name: str) -> Path | None:
    """Return the source file of a module, or None if `name` is not a module written in Python."""
    if name in sys.modules:
        origin = getattr(sys.modules[name], "__file__", None)
    else:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):  # a name in a module, not a module in a package
            spec = None
        origin = spec.origin if spec else None
    return Path(origin) if origin and origin.endswith(".py") else None


def _imports(code: ast.AST, package: str) -> Iterator[str]:
    """Return the names of the modules that code imports, and of what may be a module in one."""
    for statement in _statements(code):
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            module = importlib.util.resolve_name("." * statement.level + (statement.module or ""), package)
            yield module
            yield from (f"{module}.{alias.name}" for alias in statement.names)
        else:
            yield from _imports(statement, package)


def _statements(code: ast.AST) -> Iterator[ast.AST]:
    """Return the parts of code in which statements are, without those for type checking."""
    if isinstance(code, ast.If) and "TYPE_CHECKING" in ast.unparse(code.test):
        return iter(code.orelse)
    return (part for part in ast.iter_child_nodes(code) if isinstance(part, _WITH_STATEMENTS))
