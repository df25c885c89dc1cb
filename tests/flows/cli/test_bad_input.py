"""Contract: the command line refuses bad input before any work, with exit code 2.

One sentence names what, where and the fix; there is no traceback, and nothing half-written is left. Each case goes
through `merge` and through a recipe.
"""

import errno
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from flows.cli.program import main
from tests.fixtures.models import save_agents, save_model

Spoil = Callable[[Path], None]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and two agents, with an integer tensor such as the buffers that some architectures store."""
    root = tmp_path_factory.mktemp("template")
    base = save_model(root / "base")
    edit(base, lambda tensors: tensors.update(position_ids=torch.arange(4)))
    save_agents(base, root, {"tool": 0.2, "code": 0.3})
    return root


@pytest.fixture
def root(template: Path, tmp_path: Path) -> Path:
    """A copy to spoil, with a recipe over it."""
    shutil.copytree(template, tmp_path / "root")
    write_recipe(tmp_path / "root")
    return tmp_path / "root"


def write_recipe(root: Path, **changes: object) -> Path:
    recipe = {
        "name": "bad",
        "base": "base",
        "agents": {"tool": "tool", "code": "code"},
        "merges": ["ram"],
        "evaluation": {"suites": ["zoo_tool"]},
        **changes,
    }
    (root / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    return root / "recipe.yaml"


def edit(model: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(model / "model.safetensors")
    change(tensors)
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})


def edit_config(model: Path, **changes: object) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | changes))


class Refused(Protocol):
    """Runs a command line, requires a refusal in one sentence, and returns the sentence."""

    def __call__(self, arguments: list[str], code: int = 2) -> str:
        """Run rammerge with `arguments`, which must end with `code`."""


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Refused:
    def run(arguments: list[str], code: int = 2) -> str:
        monkeypatch.setattr(sys, "argv", ["rammerge", *arguments])
        with pytest.raises(SystemExit) as exit_:
            main()
        errors = capsys.readouterr().err.strip().splitlines()
        assert exit_.value.code == code, errors
        complaints = [line for line in errors if line.startswith("error: ")]
        assert len(complaints) == 1 and errors[-1] == complaints[0], errors
        return complaints[0]

    return run


def merge_arguments(root: Path) -> list[str]:
    agents = [f"--agent={name}={root / name}" for name in ("tool", "code")]
    return ["merge", "--base", str(root / "base"), *agents, "--out", str(root / "out")]


def line_of(command: str, root: Path) -> list[str]:
    """Return a line of `command` over the models of `root`: merge and init name them, check and run have the recipe."""
    if command == "merge":
        return merge_arguments(root)
    if command == "init":
        return ["init", *merge_arguments(root)[1:], "--suite", "zoo_tool"]
    return [command, str(root / "recipe.yaml")]


@pytest.fixture
def written(root: Path, rammerge_home: Path) -> Callable[[], list[Path]]:
    """Return a function that lists what was written beside the models and into the store."""

    def look() -> list[Path]:
        given = {"base", "tool", "code", "recipe.yaml", "blocker"}
        return [path for path in root.iterdir() if path.name not in given] + [*rammerge_home.glob("store/*/[!.]*")]

    return look


def missing(root: Path) -> None:
    shutil.rmtree(root / "tool")


def not_a_checkpoint(root: Path) -> None:
    shutil.rmtree(root / "tool")
    (root / "tool").mkdir()
    (root / "tool" / "notes.txt").write_text("nothing")


def truncated(root: Path) -> None:
    file = root / "tool" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def other_architecture(root: Path) -> None:
    shutil.rmtree(root / "tool")
    save_model(root / "tool", "gpt2")


def other_vocabulary(root: Path) -> None:
    def grow(tensors: dict[str, torch.Tensor]) -> None:
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            tensors[name] = torch.cat([tensors[name], tensors[name][:4]])

    edit(root / "tool", grow)
    edit_config(root / "tool", vocab_size=100)


def missing_tensor(root: Path) -> None:
    edit(root / "tool", lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))


def different_integers(root: Path) -> None:
    edit(root / "tool", lambda tensors: tensors.update(position_ids=torch.arange(4) + 1))


def base_as_agent(root: Path) -> None:
    shutil.rmtree(root / "tool")
    shutil.copytree(root / "base", root / "tool")


def same_agents(root: Path) -> None:
    shutil.rmtree(root / "tool")
    shutil.copytree(root / "code", root / "tool")


UNUSABLE = [
    (missing, ["tool", "does not exist"]),
    (not_a_checkpoint, ["tool", "config.json"]),
    (truncated, ["tool", "model.safetensors"]),
    (other_architecture, ["'tool'", "a different architecture"]),
    (other_vocabulary, ["'tool'", "vocabulary"]),
    (missing_tensor, ["'tool'", "model.layers.1.mlp.up_proj.weight"]),
    (different_integers, ["'tool'", "position_ids"]),
    (base_as_agent, ["'tool'", "base"]),
    (same_agents, ["'tool'", "'code'", "same weights"]),
]


@pytest.mark.parametrize(("spoil", "words"), UNUSABLE)
@pytest.mark.parametrize("command", ["merge", "check", "run"])
def test_unusable_models(
    command: str, spoil: Spoil, words: list[str], root: Path, rammerge_home: Path, refused: Refused
) -> None:
    spoil(root)
    sentence = refused(line_of(command, root))
    for word in words:
        assert word in sentence
    missing_ok = {"tool"} if spoil is missing else set()
    assert {path.name for path in root.iterdir()} | missing_ok == {"base", "tool", "code", "recipe.yaml"}
    assert not list(rammerge_home.glob("store/*/[!.]*"))


# Agents whose vocabulary has grown are no error for init: it writes the setting with which they can be merged.
@pytest.mark.parametrize(("spoil", "words"), [case for case in UNUSABLE if case[0] is not other_vocabulary])
def test_no_recipe_is_written_over_unusable_models(
    spoil: Spoil, words: list[str], root: Path, refused: Refused, written: Callable[[], list[Path]]
) -> None:
    spoil(root)
    sentence = refused(line_of("init", root))
    for word in words:
        assert word in sentence
    assert not written()


@pytest.mark.parametrize("command", ["merge", "init"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_nan_and_infinity_name_agent_and_tensor(
    command: str, value: float, root: Path, refused: Refused, written: Callable[[], list[Path]]
) -> None:
    edit(root / "code", lambda tensors: tensors["lm_head.weight"].view(-1)[5:6].fill_(value))
    sentence = refused(line_of(command, root))
    assert "'code'" in sentence and "'lm_head.weight'" in sentence
    assert not written()


@pytest.mark.parametrize(
    ("changes", "line", "words"),
    [
        ({"merges": ["rma"]}, 7, ["unknown method 'rma' (did you mean 'ram'?)"]),
        ({"merges": [{"method": "ram_plus", "preset": "papper"}]}, 7, ["(did you mean 'paper'?)"]),
        ({"merges": [{"method": "ram_plus", "params": {"alfa": 1}}]}, 7, ["(did you mean 'alpha'?)"]),
        ({"merges": [{"method": "ram_plus", "params": {"r": "much"}}]}, 7, ["'r'", "not 'much'"]),
        (
            {"merges": [{"method": "ram", "weights": {"tol": 2}}]},
            7,
            ["'tol' belongs to no agent (did you mean 'tool'?)"],
        ),
        ({"merges": [{"method": "average", "weights": {"tool": 2}}]}, 7, ["takes no weights", "use linear"]),
        ({"merges": [{"method": "ram", "tensors": [{"match": "*emb", "use": "base"}]}]}, 7, ["match no float tensor"]),
        ({"merges": [{"method": "ram", "tensors": [{"match": "*", "use": "tol"}]}]}, 7, ["(did you mean 'tool'?)"]),
        ({"merges": [{"method": "ram", "tensors": [{"match": "*", "params": {"q": 1}}]}]}, 7, ["no parameter 'q'"]),
        ({"evaluation": {"suites": ["zoo_tol"]}}, 10, ["unknown suite 'zoo_tol' (did you mean 'zoo_tool'?)"]),
        ({"gates": [{"rule": "not_worse_then_base"}]}, 12, ["(did you mean 'not_worse_than_base'?)"]),
        ({"gates": [{"rule": "better_than", "model": "rom"}]}, 12, ["'rom' (did you mean 'ram'?)"]),
        ({"compute": {"memory": "lots"}}, 12, ["compute.memory", "a size is a number with a unit, such as 5GB"]),
        ({"agnets": {}}, 11, ["unknown key (did you mean 'agents'?)"]),
        ({"agents": {"tool": "tol", "code": "code"}}, 4, ["does not exist (did you mean 'tool'?)"]),
    ],
)
@pytest.mark.parametrize("command", ["check", "run"])
def test_mistakes_in_a_recipe(
    command: str,
    changes: dict[str, object],
    line: int,
    words: list[str],
    root: Path,
    refused: Refused,
    written: Callable[[], list[Path]],
) -> None:
    recipe = write_recipe(root, **changes)
    sentence = refused([command, str(recipe)])
    assert sentence.startswith(f"error: {recipe}:{line}: ")
    for word in words:
        assert word in sentence
    assert not written()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], ["nonsense", "rammerge --help"]),
        (["merge"], ["--base", "merge --help"]),
        (["merge", "--nope"], ["--nope", "merge --help"]),
        (["merge", "--base=b", "--agent=a", "--out=o", "--dtype=int8"], ["int8", "bfloat16", "merge --help"]),
        (["methods", "extra"], ["extra", "methods --help"]),
    ],
)
def test_a_line_that_cannot_be_parsed(arguments: list[str], words: list[str], refused: Refused) -> None:
    sentence = refused(arguments)
    for word in words:
        assert word in sentence


def test_an_output_that_exists_is_kept_unless_forced(
    root: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    (root / "out").mkdir()
    (root / "out" / "precious").write_text("mine")
    assert "--force" in refused(merge_arguments(root))
    assert (root / "out" / "precious").read_text() == "mine"
    monkeypatch.setattr(sys, "argv", ["rammerge", *merge_arguments(root), "--force"])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 0
    assert (root / "out" / "rammerge.json").is_file() and not (root / "out" / "precious").exists()


def test_an_output_that_cannot_be_written(
    root: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused, written: Callable[[], list[Path]]
) -> None:
    (root / "blocker").write_text("a file where a directory should be")
    arguments = merge_arguments(root)
    arguments[-1] = str(root / "blocker" / "out")
    assert "blocker" in refused(arguments)
    assert not written()
    monkeypatch.setenv("RAMMERGE_HOME", str(root / "blocker"))
    assert "RAMMERGE_HOME" in refused(["run", str(root / "recipe.yaml")])


@pytest.mark.parametrize("command", ["merge", "init", "check", "run"])
def test_a_full_disk_is_forecast(
    command: str, root: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused, written: Callable[[], list[Path]]
) -> None:
    usage = shutil.disk_usage(root)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    sentence = refused(line_of(command, root))
    assert "free" in sentence
    assert not written()


def test_a_hub_id_without_network(root: Path, refused: Refused, written: Callable[[], list[Path]]) -> None:
    arguments = merge_arguments(root)
    arguments[2] = "some-org/some-model"
    sentence = refused(arguments)
    assert "some-org/some-model" in sentence and "HF_HUB_OFFLINE" in sentence
    assert not written()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["evaluate", "/nowhere", "--suite", "zoo_tool"], "/nowhere"),
        (["evaluate", ".", "--suite", "zoo_tul"], "did you mean 'zoo_tool'?"),
        (["releases", "nothing"], "no registered model is called 'nothing'"),
        (["rollback", "nothing"], "no registered model is called 'nothing'"),
        (["promote", "nothing", "1"], "no registered model is called 'nothing'"),
        (["run", "/nowhere.yaml"], "no such recipe file"),
        (["check"], "give the path of a recipe"),
        (["merge", "--base=.", "--agent=.", "--out=out", "--shard-size=lots"], "--shard-size 'lots': a size is a"),
        (["inspect", "--base=.", ".", "--memory=-1GB"], "--memory '-1GB': a size is a"),
        (["merge", "--base=.", "--agent=.", "--out=out", "--threads=two"], "'--threads': it should be a whole number"),
        (["ui", "--port=70000"], "'--port': it should be at most 65534"),
    ],
)
def test_other_commands(
    arguments: list[str], word: str, rammerge_home: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{rammerge_home / 'mlflow.db'}")
    assert word in refused(arguments)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("(sqlite3) database or disk is full")]
)
def test_a_disk_that_fills_up_on_the_way_is_told_as_such(
    error: Exception, root: Path, rammerge_home: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("flows.cli.running.run", fail)
    sentence = refused(["run", str(root / "recipe.yaml")], code=1)
    assert sentence.startswith(f"error: no space left on the disk of {rammerge_home}; make room and run again")
