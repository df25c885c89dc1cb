"""Contract: what the documents tell users to type works.

The Python in README.md and CONTRIBUTING.md runs as written, with real models in place of its names. Every command line
of rammerge in a document parses. Every command and option that documents, messages and comments mention exists.
"""

import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import typer

import rammerge
from flows.cli.program import app

ROOT = Path(__file__).parents[1]
ZOO = ROOT / "examples" / "zoo" / "checkpoints"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/*.md")])
SOURCES = [
    file
    for folder in ("rammerge", "evaluation", "tasks", "flows", "examples")
    for pattern in ("*.py", "*.yaml")
    for file in sorted((ROOT / folder).rglob(pattern))
]
PROGRAM: Any = typer.main.get_command(app)


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
    # Under a name of its own, because a module stays loaded and other tests have an own_method.
    (tmp_path / "contributed_method.py").write_text(python("CONTRIBUTING.md", "from rammerge import Block"))
    monkeypatch.syspath_prepend(tmp_path)
    own_method = import_module("contributed_method")
    agents = {name: ZOO / name for name in ("tool", "code")}
    rammerge.merge(ZOO / "base", agents, out=tmp_path / "merged", method=own_method.METHOD, compile="never")
    rammerge.verify(tmp_path / "merged")


def lines(document: Path) -> Iterator[list[str]]:
    """Yield the words after `rammerge` of each command line in the shell blocks of a document."""
    for block in re.findall(r"^```bash\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.shlex(line, posix=True, punctuation_chars=True)
            words.whitespace_split = True
            for is_operator, command in groupby(words, lambda word: set(word) <= set("&|;<>()")):
                program, *rest = command
                if not is_operator and program.rpartition("/")[2] == "rammerge":
                    yield rest


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_command_lines_parse(document: Path) -> None:
    for command, *arguments in lines(document):
        assert command in PROGRAM.commands, f"rammerge {command}"
        PROGRAM.commands[command].make_context(command, [*arguments])


@pytest.mark.parametrize("files", [DOCUMENTS, SOURCES], ids=["documents", "sources"])
def test_commands_and_options_that_are_mentioned_exist(files: list[Path]) -> None:
    mentioned = [
        (file, words.split())
        for file in files
        for words in re.findall(r"`rammerge ([a-z-][^`]*)`", re.sub(r"\s*\n\s*(?:# )?", " ", file.read_text()))
    ]
    assert len(mentioned) > 20
    for file, (command, *rest) in mentioned:
        where = f"{file}: rammerge {command}"
        known = PROGRAM if command.startswith("-") else PROGRAM.commands.get(command)
        assert known is not None, where
        if rest and rest[0] in getattr(known, "commands", {}):
            known = known.commands[rest[0]]
        options = {name for parameter in known.params for name in parameter.opts} | {"--help", "--install-completion"}
        wanted = {word for word in (command, *rest) if word.startswith("--")}
        assert wanted <= options, f"{where} {wanted - options}"
