"""Contract: the Python in README.md and CONTRIBUTING.md runs as written, with real models in place of its names."""

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import rammerge

ROOT = Path(__file__).parents[1]
ZOO = ROOT / "examples" / "zoo" / "checkpoints"


def python(document: str, start: str) -> str:
    """Return the Python block of a document that starts with `start`."""
    blocks: list[str] = re.findall(r"^```python\n(.*?)^```", (ROOT / document).read_text(), re.DOTALL | re.MULTILINE)
    (found,) = (block for block in blocks if block.startswith(start))
    return found


def test_the_readme_measures_and_merges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = python("README.md", "import rammerge").replace('"BASE"', f'"{ZOO / "base"}"')
    for name in ("tool", "code"):
        text = text.replace('"DIR"', f'"{ZOO / name}"', 1)
    found: dict[str, Any] = {}
    exec(text.partition("outcome = ")[0], found)  # the pipeline has a test of its own
    assert list(found["overlap"].agents) == ["tool", "code"]
    rammerge.verify("merged")


def test_contributing_adds_a_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_method.py").write_text(python("CONTRIBUTING.md", "from rammerge import Block"))
    monkeypatch.syspath_prepend(tmp_path)
    own_method = import_module("own_method")
    agents = {name: ZOO / name for name in ("tool", "code")}
    rammerge.merge(ZOO / "base", agents, out=tmp_path / "merged", method=own_method.METHOD, compile="never")
    rammerge.verify(tmp_path / "merged")
