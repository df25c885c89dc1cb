"""Property: whatever is wrong with a recipe or with what it names, `check` accepts it or refuses it in one sentence.

The catalogue is made of what exists: each file of a model and of a suite is damaged in each way, and each key of the
recipe, of a model's settings and of a suite gets each odd value. Nothing ends in a traceback, in an "unexpected" error,
or in anything but exit code 0 or 2.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from lm_eval.api.task import TaskConfig

from flows.cli.program import main
from tests.evaluation.made import write_model, write_suite
from tests.fixtures.models import save_agent

pytestmark = pytest.mark.long

ODD: tuple[Any, ...] = (None, -1, 1e999, "", "\x00", [None], {"odd": [1]})
RECIPE: dict[str, Any] = {
    "name": "odd",
    "base": {"source": "base"},
    "agents": {"tool": {"source": "tool"}, "code": "code"},
    "merges": ["ram", {"method": "ram_plus", "preset": "paper", "params": {"r": 0.2}, "name": "mine"}, "ties"],
    "output": {"dtype": "bfloat16", "rounding": "nearest", "seed": 1, "shard_size": "1GB", "tokenizer": "tool"},
    "compute": {"device": "cpu", "memory": "2GiB"},
    "evaluation": {"suites": ["./words", "./chat"], "dtype": "float32", "batch_size": 8, "confidence": 0.9, "limit": 4},
    "gates": [{"rule": "min_score", "value": 0.5, "suite": "words", "evidence": "point"}, "beats_every_agent"],
    "registry": {"model": "odd", "promote": False},
}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("template")
    base = write_model(root / "base")
    for seed, name in enumerate(("tool", "code"), start=1):
        save_agent(base, root / name, density=0.3, seed=seed)
    write_suite(root / "words", sizes=(3, 4))
    write_suite(root / "chat", sizes=(1, 1), apply_chat_template=True)
    (root / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    return root


@pytest.fixture
def root(template: Path, tmp_path: Path) -> Path:
    shutil.copytree(template, tmp_path / "root")
    return tmp_path / "root"


def ask_only(root: Path, *suites: str) -> None:
    """Have the recipe name no suite but these, where the others would be tried out a hundred times for nothing."""
    evaluation = {**RECIPE["evaluation"], "suites": [f"./{suite}" for suite in suites]}
    gates = [gate for gate in RECIPE["gates"] if isinstance(gate, str) or gate["suite"] in suites]
    (root / "recipe.yaml").write_text(yaml.safe_dump({**RECIPE, "evaluation": evaluation, "gates": gates}))


def verdict(root: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Check the recipe; return the exit code and what stderr says."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as exit_:
        patch.setattr(sys, "argv", ["rammerge", "check", str(root / "recipe.yaml")])
        main()
    assert isinstance(exit_.value.code, int)
    return exit_.value.code, capsys.readouterr().err


def complaint(code: int, errors: str) -> str | None:
    """Return what is wrong with a verdict, or None."""
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    if code not in (0, 2) or len(lines) != (code == 2) or "error: unexpected" in errors or "Traceback" in errors:
        return f"{code}: {errors}"
    return None


@pytest.mark.parametrize("suites", [["words"], ["chat"], ["words", "chat"]])
def test_what_is_not_damaged_is_accepted(suites: list[str], root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask_only(root, *suites)
    assert verdict(root, capsys)[0] == 0


def remove(file: Path) -> None:
    file.unlink()


def empty(file: Path) -> None:
    file.write_bytes(b"")


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def overwrite(file: Path) -> None:
    file.write_bytes(bytes(range(256)) * 8)


def replace_by_directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


def replace_by_fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def replace_by_loop(file: Path) -> None:
    file.unlink()
    file.symlink_to(file)


def replace_by_dangling_link(file: Path) -> None:
    file.unlink()
    file.symlink_to("nowhere")


def replace_by_list(file: Path) -> None:
    file.write_text("[[], 1]")


def nest(file: Path) -> None:
    file.write_text("[" * 5_000)


DAMAGES = (
    remove, empty, truncate, overwrite, replace_by_directory, replace_by_fifo, replace_by_loop,
    replace_by_dangling_link, replace_by_list, nest
)  # fmt: skip
FILES = (
    *(f"{model}/{file}" for model in ("base", "tool") for file in (
        "config.json", "model.safetensors", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
        "chat_template.jinja",
    )),
    *(f"words/{file}" for file in ("suite.yaml", "scoring.py", "validation.jsonl", "test.jsonl", "test.yaml")),
    "recipe.yaml",
)  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file(
    file: str, damage: Callable[[Path], None], root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(root / file)
    assert complaint(*verdict(root, capsys)) is None


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where each part of nested mappings and lists is."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield (*at, key)
        yield from places(child, (*at, key))


def put(content: Any, place: tuple[Any, ...], value: object) -> None:
    for key in place[:-1]:
        content = content[key]
    content[place[-1]] = value


def odd_values_in(
    file: Path, read: Callable[[str], Any], write: Callable[[Any], str], check: Callable[[], str | None], depth: int = 9
) -> str:
    """Give each part of `file`, down to `depth`, each odd value in turn; return what `check` complains of."""
    original = file.read_text()
    complaints = []
    for place in [place for place in places(read(original)) if len(place) <= depth]:
        for odd in ODD:
            content = read(original)
            put(content, place, odd)
            file.write_text(write(content))
            if wrong := check():
                complaints.append(f"{'.'.join(map(str, place))} = {odd!r}: {wrong}")
    return "\n".join(complaints)


def test_odd_values_in_the_recipe(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = odd_values_in(
        root / "recipe.yaml", yaml.safe_load, yaml.safe_dump, lambda: complaint(*verdict(root, capsys))
    )
    assert found == ""


@pytest.mark.parametrize("file", ["suite.yaml", "test.yaml"])
def test_odd_values_in_a_suite(file: str, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask_only(root, "words")
    # lm-eval's tag for functions is no plain YAML; as text it names the function all the same.
    task = (root / "words" / file).read_text().replace("!function ", "")
    (root / "words" / file).write_text(task)
    found = odd_values_in(
        root / "words" / file, yaml.safe_load, yaml.safe_dump, lambda: complaint(*verdict(root, capsys))
    )
    assert found == ""


@pytest.mark.parametrize("odd", ODD[::2], ids=repr)
def test_odd_values_of_every_other_key_that_lm_eval_knows(
    odd: object, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask_only(root, "words")
    file = root / "words" / "test.yaml"
    task = file.read_text().replace("!function ", "")
    complaints = []
    for key in sorted({field.name for field in fields(TaskConfig)} - yaml.safe_load(task).keys()):
        changed = yaml.safe_dump({**yaml.safe_load(task), key: odd})
        file.write_text(changed.replace("scoring.process_results", "!function scoring.process_results"))
        if wrong := complaint(*verdict(root, capsys)):
            complaints.append(f"{key}: {wrong}")
    assert complaints == []


@pytest.mark.parametrize(
    ("file", "suites"),
    [
        ("tool/config.json", ["chat"]),
        ("tool/generation_config.json", ["chat"]),
        ("tool/tokenizer_config.json", ["words", "chat"]),  # with the template and without
    ],
)
def test_odd_values_in_the_settings_of_a_model(
    file: str, suites: list[str], root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask_only(root, *suites)
    found = odd_values_in(root / file, json.loads, json.dumps, lambda: complaint(*verdict(root, capsys)), depth=1)
    assert found == ""
