"""Contract: a function has forty lines at most, besides its docstring, which may be as long as its parameters need."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]

_MOST = 40
_FOLDERS = ("rammerge", "flows", "tasks", "evaluation", "benchmarks", "examples", "release")


def too_long(code: str, where: str) -> Iterator[str]:
    """Yield a sentence for each function in `code` that is too long."""
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        first = node.body[0]
        documented = ast.get_docstring(node, clean=False) is not None
        docstring = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
        lines = (node.end_lineno or 0) - node.lineno + 1 - docstring
        if lines > _MOST:
            yield f"{where}:{node.lineno}: {node.name} has {lines} lines; divide it (CONTRIBUTING.md, rule 1)"


@pytest.mark.parametrize("folder", _FOLDERS)
def test_no_function_is_longer_than_a_screen(folder: str) -> None:
    files = sorted((_ROOT / folder).rglob("*.py"))
    assert files
    found = [each for file in files for each in too_long(file.read_text("utf-8"), str(file.relative_to(_ROOT)))]
    assert found == []


def test_a_docstring_does_not_count_and_everything_else_does() -> None:
    body = "    x = 1\n" * (_MOST - 1)
    assert list(too_long(f'def f():\n    """One.\n\n    Two.\n    """\n{body}', "m.py")) == []
    assert list(too_long(f"def f():\n{body}    x = 1\n", "m.py")) == [
        "m.py:1: f has 41 lines; divide it (CONTRIBUTING.md, rule 1)"
    ]
