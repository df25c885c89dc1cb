"""Contract of `rammerge init`: it writes a recipe that `check` accepts and that describes the models it found.

It asks only on a terminal, and replaces no file without being asked to. test_bad_input shows that it refuses what
`check` refuses, and then writes nothing.
"""

import json
import os
import pty
import shutil
import string
import subprocess
import sys
from codecs import getincrementaldecoder
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from flows.cli.draft import Draft
from flows.cli.program import main
from flows.cli.survey import Survey
from rammerge.recipe import load, parse
from rammerge.rules import METHODS
from tests.evaluation.made import write_tokenizer
from tests.fixtures.models import edit_config, save_agents, save_model
from tests.fixtures.waiting import no_hanging


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    base = edit_config(save_model(root / "base"), max_position_embeddings=256)
    write_tokenizer(base, characters=string.printable[:92])
    save_agents(base, root, {"tool": 0.2, "code": 0.3})
    return root


@pytest.fixture
def root(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with models/base, models/tool and models/code."""
    shutil.copytree(template, tmp_path / "work" / "models")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def run(*words: object) -> int:
    """Run the command line in this process, away from any terminal, and return its exit code."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as exit_:
        patch.setattr(sys, "argv", ["rammerge", *map(str, words)])
        main()
    assert isinstance(exit_.value.code, int)
    return exit_.value.code


MODELS = ("--base", "models/base", "--agent", "models/tool", "--agent", "coder=models/code")


def test_check_accepts_what_it_wrote(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("init", *MODELS) == 0
    assert capsys.readouterr().out == (
        "recipe.yaml is written: read it, put your own suites into it, set promote to true, then "
        "`rammerge run recipe.yaml`\n"
    )
    assert run("check", "recipe.yaml") == 0
    assert {path.name for path in root.iterdir()} == {"models", "recipe.yaml"}
    recipe = load(root / "recipe.yaml")
    assert recipe.base.source == "./models/base"
    assert {name: agent.source for name, agent in recipe.agents.items()} == {
        "tool": "./models/tool",
        "coder": "./models/code",
    }
    assert recipe.name == recipe.model_name == "base-merge"
    assert {"average", "task_arithmetic", "ties", "ram", "ram_plus"} <= {merge.method for merge in recipe.merges}
    assert [gate.rule for gate in recipe.gates] == ["not_worse_than_base", "beats_every_agent"]
    assert not recipe.registry.promote, "no model serves because of what the demo's suites say"


def test_it_says_what_the_models_were_found_to_be(root: Path) -> None:
    run("init", *MODELS)
    comments = (root / "recipe.yaml").read_text()
    elements = sum(tensor.numel() for tensor in load_file(root / "models/base/model.safetensors").values())
    assert f"llama, {elements / 1000:.3g} thousand parameters, stored as bfloat16" in comments
    for name in ("tool", "coder"):
        assert f"#   {name:<5}  changed " in comments
    assert all(name in comments for name in METHODS)


def test_what_lies_elsewhere_is_named_absolutely(root: Path) -> None:
    assert run("init", *MODELS, "--out", "recipes/first.yaml", "--name", "first", "--suite", "zoo_tool") == 0
    recipe = load(root / "recipes/first.yaml")
    assert recipe.base.source == str(root / "models/base")
    assert (recipe.name, recipe.evaluation.suites) == ("first", ["zoo_tool"])
    assert run("check", "recipes/first.yaml") == 0


def test_names_that_yaml_would_misread_are_quoted(root: Path) -> None:
    (root / "models" / "tool").rename(root / "models" / "no: 1e5 # 'x'")
    names = ["--agent", "1e5=models/no: 1e5 # 'x'", "--agent", "on=models/code"]
    assert run("init", "--base", "models/base", *names) == 0
    assert run("check", "recipe.yaml") == 0
    agents = load(root / "recipe.yaml").agents
    assert {name: agent.source for name, agent in agents.items()} == {
        "1e5": "./models/no: 1e5 # 'x'",
        "on": "./models/code",
    }


def test_a_suite_of_ones_own_and_a_single_agent(root: Path) -> None:
    from tests.evaluation.made import write_suite

    write_suite(root / "words", sizes=(6, 10))
    assert run("init", "--base", "models/base", "--agent", "models/tool", "--suite", "words") == 0
    recipe = load(root / "recipe.yaml")
    assert recipe.evaluation.suites == ["./words"]
    assert recipe.registry.promote
    assert run("check", "recipe.yaml") == 0


def test_grown_vocabularies_are_merged_on_the_common_rows(root: Path) -> None:
    file = root / "models/tool/model.safetensors"
    tensors = load_file(file)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = torch.cat([tensors[name], tensors[name][:4]])
    save_file(tensors, file, metadata={"format": "pt"})
    config = json.loads((root / "models/tool/config.json").read_text())
    (root / "models/tool/config.json").write_text(json.dumps({**config, "vocab_size": 100}))
    assert run("init", *MODELS) == 0
    assert load(root / "recipe.yaml").output.resize == "common"
    assert "# Note: agent 'tool' appended 4 rows" in (root / "recipe.yaml").read_text()
    assert run("check", "recipe.yaml") == 0


def test_models_on_the_hub_are_not_fetched(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub = ("--base", "org/model@main", "--agent", "org/tool", "--agent", "models/code")
    assert run("init", *hub) == 0
    assert run("check", "recipe.yaml") == 0
    recipe = load(root / "recipe.yaml")
    assert (recipe.name, recipe.base.source) == ("model-merge", "org/model@main")
    inspect = "rammerge inspect --base org/model@main tool=org/tool code=models/code"
    assert inspect in (root / "recipe.yaml").read_text()
    capsys.readouterr()
    assert run("init", "--base", "models/bse", "--agent", "org/tool", "--force") == 0
    assert "warning: models/bse is not a directory here (did you mean 'base'?)" in capsys.readouterr().err


def test_a_file_is_replaced_only_when_forced(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "recipe.yaml").write_text("mine")
    assert run("init", *MODELS) == 2
    assert (
        capsys.readouterr().err == "error: recipe.yaml exists; write to a different --out, or replace it with --force\n"
    )
    assert (root / "recipe.yaml").read_text() == "mine"
    assert run("init", *MODELS, "--force") == 0
    assert load(root / "recipe.yaml").name == "base-merge"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "give --base and at least one --agent, or run this on a terminal"),
        (("--base", "models/base"), "give --base and at least one --agent"),
        ((*MODELS, "--suite", "zoo_tul"), "unknown suite 'zoo_tul' (did you mean 'zoo_tool'?)"),
        ((*MODELS, "--name", "my model"), "'my model' cannot name a recipe"),
        (
            ("--base", "models/base", "--agent", "ties=models/tool"),
            "a merge has this name; give --agent NAME=models/tool",
        ),
        (("--base", "models/base", "--agent", "overall=models/tool"), "'overall' cannot name an agent"),
        (("--base", "models/base", "--agent", "models/a b"), "give --agent NAME='models/a b'"),
        ((*MODELS, "--out", "models"), "models is a directory; give --out the name of a file"),
        ((*MODELS, "--out", "models/base/config.json/x.yaml"), "is not a directory that you may write"),
    ],
)
def test_what_is_wrong_is_said_at_once(
    words: tuple[str, ...], sentence: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("init", *words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and sentence in error
    assert error.count("\n") == 1
    assert {path.name for path in root.iterdir()} == {"models"}


def test_a_large_model_is_evaluated_in_a_dtype_that_fits() -> None:
    found = Survey("qwen2", 7_600_000_000, ("bfloat16",), "refuse", ("beware",), None)
    draft = Draft("large", "large.yaml", "org/base", {"tool": "org/tool"}, ["zoo_tool"], found, "rammerge inspect ...")
    recipe = parse(Path("large.yaml"), draft.text())
    assert (recipe.output.dtype, recipe.evaluation.dtype) == ("float32", "bfloat16")
    assert "qwen2, 7.6 billion parameters" in draft.text()
    assert "a variant takes 30.4 GB" in draft.text()
    assert "# Note: beware." in draft.text()


def converse(command: list[str], answers: list[tuple[str, str]], cwd: Path) -> tuple[int, str]:
    """Run `command` on a terminal, and give each answer once its question is there; return exit code and screen.

    A control character must wait for the blank at the prompt's end, which shows that the line editor is at work: the
    terminal itself would take the character before.
    """
    leader, follower = pty.openpty()
    process = subprocess.Popen(command, cwd=cwd, stdin=follower, stdout=follower, stderr=follower, env=os.environ)
    os.close(follower)
    screen, seen, decode = "", 0, getincrementaldecoder("utf-8")().decode
    with no_hanging(), suppress(OSError):  # EIO: the command has ended
        for question, answer in answers:
            while question not in screen[seen:]:
                screen += decode(os.read(leader, 4096))
            seen = len(screen)
            os.write(leader, answer.encode())
        while True:
            screen += decode(os.read(leader, 4096))
    os.close(leader)
    return process.wait(), screen


def rehearse(*suites: str) -> None:
    """Write a recipe in this process, so that the next command finds its suites tried out, and starts no model."""
    assert run("init", *MODELS, *(word for suite in suites for word in ("--suite", suite)), "--out", "other.yaml") == 0


def test_it_asks_on_a_terminal(root: Path) -> None:
    rehearse("zoo_tool", "zoo_code")
    command = [sys.executable, "-m", "rammerge", "init"]
    answers = [
        ("Base model", "./models/bse\r"),
        ("does not exist", "./models/base\r"),
        ("Agent 1", "models/base\r"),
        ("same weights as the base", "models/tool\r"),
        ("Agent 2", "coder=models/code\r"),
        ("Agent 3", "\r"),
        ("Suites, separated by spaces [later]: ", "zoo_tool zoo_cod\r"),
        ("did you mean 'zoo_code'?", "zoo_tool zoo_code\r"),
    ]
    code, screen = converse(command, answers, root)
    assert code == 0, screen
    recipe = load(root / "recipe.yaml")
    assert list(recipe.agents) == ["tool", "coder"]
    assert recipe.evaluation.suites == ["zoo_tool", "zoo_code"]


def test_what_is_given_is_not_asked_for_and_ctrl_d_writes_nothing(root: Path) -> None:
    rehearse("zoo_tool")
    command = [sys.executable, "-m", "rammerge", "init", *MODELS]
    code, screen = converse(command, [("Suites, separated by spaces [later]: ", "\x04")], root)
    assert code == 130, screen
    assert "Base model" not in screen and "Agent" not in screen
    assert not (root / "recipe.yaml").exists()
    code, screen = converse([*command, "--suite", "zoo_tool"], [], root)
    assert code == 0, screen
    assert "Suites" not in screen
