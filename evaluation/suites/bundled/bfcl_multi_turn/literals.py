"""Data in Python sources."""

import ast
from typing import Any


def literals(source: str) -> dict[str, Any]:
    """Return the literals that a source assigns to names, of each the first; nothing of it is run."""
    found: dict[str, Any] = {}
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                pass
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                pass
            case _:
                continue
        try:
            found.setdefault(name, ast.literal_eval(value))
        except ValueError:  # it is computed
            continue
    return found
