"""Contract of the editable install: the checkout's four packages, and nothing else, can be imported from anywhere.

Tests, examples and benchmarks lie beside them, and their names are ones that anyone may use.
"""

from pathlib import Path

from tests.fixtures.installed import CHECKOUT, Installation


def test_only_the_packages_can_be_imported(editable: Installation, tmp_path: Path) -> None:
    code = """
import importlib.util
for name in ("rammerge", "evaluation", "tasks", "flows", "tests", "examples", "benchmarks"):
    spec = importlib.util.find_spec(name)
    print(name, spec and spec.origin)
"""
    done = editable.run(editable.python, "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    own = {name: str(CHECKOUT / name / "__init__.py") for name in ("rammerge", "evaluation", "tasks", "flows")}
    assert found == {**own, "tests": "None", "examples": "None", "benchmarks": "None"}


def test_the_program_runs_from_anywhere(editable: Installation, tmp_path: Path) -> None:
    done = editable.run(editable.rammerge, "methods", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "ram_plus" in done.stdout
