"""Contract of the shell's completion: the shell's own protocol, spoken by a real shell, offers what exists.

It answers at the speed of `--help`, since it imports nothing heavy. Files and directories are the shell's to complete:
for those the program offers nothing.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from evaluation.suites import available_suites
from rammerge.rules import METHODS

ASK = """
eval "$1"
shift
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_rammerge_completion rammerge
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which `rammerge` is this checkout's program, and the home directory is empty."""
    root = tmp_path_factory.mktemp("shell")
    (root / "bin").mkdir()
    (root / "home").mkdir()
    program = root / "bin" / "rammerge"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m rammerge "$@"\n')
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{root / 'bin'}:{os.environ['PATH']}", "HOME": str(root / "home"), "SHELL": "bash"}


@pytest.fixture(scope="module")
def script(shell: dict[str, str]) -> str:
    """What bash evaluates when it starts."""
    asked = {"_RAMMERGE_COMPLETE": "source_bash"}
    return subprocess.run(["rammerge"], env={**shell, **asked}, capture_output=True, text=True, check=True).stdout


def offered(shell: dict[str, str], script: str, *words: str) -> list[str]:
    """Return what bash offers at the end of a line of `words`, of which the last is being typed."""
    command = ["bash", "--norc", "-c", ASK, "bash", script, "rammerge", *words]
    done = subprocess.run(command, env=shell, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["me"], {"merge", "methods", "metrics"}),
        (["--ver"], {"--version"}),
        (["merge", "--shard"], {"--shard-size"}),
        (["merge", "--method", ""], set(METHODS)),
        (["merge", "--method", "ram_p"], {"ram_plus", "ram_plus_soft"}),
        (["merge", "--method", "ram_plus", "--preset", ""], set(METHODS["ram_plus"].presets)),
        (["merge", "--preset", ""], set(METHODS["ram"].presets)),  # of the default method
        (["merge", "--dtype", "b"], {"bfloat16"}),
        (["merge", "--agent", "/models/tool", "--agent", "/models/code", "--tokenizer", ""], {"base", "tool", "code"}),
        (["evaluate", "model", "--suite", ""], set(available_suites())),
        (["evaluate", "model", "--suite", "zoo_t"], {"zoo_tool"}),
        (["run", ""], set()),
        (["merge", "--base", ""], set()),
    ],
)
def test_bash_offers_what_exists(shell: dict[str, str], script: str, words: list[str], expected: set[str]) -> None:
    assert set(offered(shell, script, *words)) == expected


def test_bash_completes_files_where_nothing_is_offered(shell: dict[str, str]) -> None:
    script = 'eval "$(_RAMMERGE_COMPLETE=source_bash rammerge)"; complete -p rammerge'
    done = subprocess.run(["bash", "--norc", "-c", script], env=shell, capture_output=True, text=True, check=True)
    assert "-o default" in done.stdout


@pytest.mark.parametrize(
    ("instruction", "words", "answer"),
    [
        ("complete_zsh", "rammerge merge --method ram_p", '_arguments \'*: :(("ram_plus"\n"ram_plus_soft"))\'\n'),
        ("complete_zsh", "rammerge run ", "_files\n"),
        ("complete_fish", "rammerge merge --method ram_p", "ram_plus\nram_plus_soft\n"),
    ],
)
def test_other_shells_are_answered_too(shell: dict[str, str], instruction: str, words: str, answer: str) -> None:
    asked = {
        "_RAMMERGE_COMPLETE": instruction,
        "_TYPER_COMPLETE_ARGS": words,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    done = subprocess.run(["rammerge"], env={**shell, **asked}, capture_output=True, text=True, check=True)
    assert done.stdout == answer


def test_one_command_installs_it(shell: dict[str, str]) -> None:
    # The last command of `bash -c` replaces bash, whose name tells which shell it is; so another one follows.
    script = "rammerge --install-completion; exit $?"
    done = subprocess.run(["bash", "-c", script], env=shell, capture_output=True, text=True, check=True)
    assert "bash completion installed" in done.stdout
    asked = ["bash", "--rcfile", str(Path(shell["HOME"]) / ".bashrc"), "-i", "-c", "complete -p rammerge"]
    done = subprocess.run(asked, env=shell, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    assert "_rammerge_completion rammerge" in done.stdout


def test_nothing_heavy_is_imported() -> None:
    heavy = {"torch", "prefect", "mlflow", "lm_eval", "transformers"}
    code = (
        "import sys, atexit\n"
        "from flows.cli.program import main\n"
        f"atexit.register(lambda: print([name for name in {sorted(heavy)} if name in sys.modules], file=sys.stderr))\n"
        "main()"
    )
    for words in (
        "rammerge merge --method ",
        "rammerge merge --method ram_plus --preset ",
        "rammerge evaluate m --suite ",
    ):
        asked = {"_RAMMERGE_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": words}
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, **asked}, capture_output=True, text=True, check=True
        )
        assert done.stdout
        assert done.stderr == "[]\n"
