"""What the modules of a tree import, read from their source.

An import counts wherever it stands: at the top, in a function, or where only the type checker reads it. So does a
module's name in a string, which `importlib` or `python -m` can import. What a module names it knows.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

# Functions whose first argument is the name of a module.
_IMPORTERS = {"import_module", "find_spec", "__import__"}


@dataclass(frozen=True)
class Import:
    """`module` names `target` in line `line`; the target is a module of the tree, or of a library."""

    module: str
    line: int
    target: str

    def __str__(self) -> str:
        """Return what to look at, such as `rammerge.api, line 3, imports flows.cli`."""
        return f"{self.module}, line {self.line}, imports {self.target}"


def find_modules(root: Path, packages: Iterable[str]) -> dict[str, Path]:
    """Return module name -> file for every module of the `packages` in `root`; a package counts as its __init__."""
    found = {}
    for package in packages:
        for file in sorted((root / package).rglob("*.py")):
            parts = file.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def find_imports(modules: Mapping[str, Path]) -> list[Import]:
    """Return what the modules import of one another and of libraries, their own names left out."""
    return [each for name, file in modules.items() for each in _imports(name, file, modules) if each.target != name]


def _imports(name: str, file: Path, modules: Mapping[str, Path]) -> Iterator[Import]:
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        for target in _targets(node, package, modules):
            yield Import(name, getattr(node, "lineno", 0), target)


def _targets(node: ast.AST, package: str, modules: Mapping[str, Path]) -> Iterator[str]:
    match node:
        case ast.Import():
            yield from (_nearest(alias.name, modules) for alias in node.names)
        case ast.ImportFrom():
            source = _absolute(node, package)
            yield from (_nearest(f"{source}.{alias.name}", modules) for alias in node.names)
        case ast.Call(args=[ast.Constant(value=str(text)), *_]) if _called(node) in _IMPORTERS:
            yield _nearest(text, modules)
        case ast.List() | ast.Tuple():
            words = [each.value if isinstance(each, ast.Constant) else None for each in node.elts]
            following = (word for flag, word in pairwise(words) if flag == "-m")
            yield from (_nearest(word, modules) for word in following if isinstance(word, str))
        case ast.Constant(value=str(text)) if "." in text and (found := text.partition(":")[0]) in modules:
            yield found


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    above = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*above, *([node.module] if node.module else [])])


def _called(call: ast.Call) -> str:
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def _nearest(name: str, modules: Mapping[str, Path]) -> str:
    """Return the module of the tree that `name`, perhaps a name in it, belongs to; a library's name as it is."""
    parts = name.split(".")
    candidates = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
    return next((candidate for candidate in candidates if candidate in modules), name)
