"""Contract: merge, inspect, methods and verify as a user calls them: what they print, write and exit with."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from rammerge.cli import terminal
from rammerge.cli.parsing import (
    name_agents,
    parse_settings,
    parse_steps,
    parse_tensor_rules,
    parse_weights,
    split_groups,
)
from rammerge.engine.progress import Progress
from rammerge.errors import InputError
from tests.fixtures.models import save_agents


def rammerge(*words: object, stdout: int | IO[str] = subprocess.PIPE) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "rammerge", *map(str, words)]
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A base and two agents."""
    from tests.fixtures.models import save_model

    root = tmp_path_factory.mktemp("models")
    base = save_model(root / "base")
    return [base, *save_agents(base, root, {"tool": 0.1, "code": 0.4}).values()]


def test_merge_verify_and_refuse_to_overwrite(models: list[Path], tmp_path: Path) -> None:
    base, tool, code = models
    out = tmp_path / "merged"
    words = ("merge", "--base", base, "--agent", tool, "--agent", f"coder={code}", "--out", out)
    settings = ("--method", "ram_plus", "--preset", "authors-cli", "--set", "alpha=1.5", "--dtype", "bfloat16")
    done = rammerge(*words, *settings)
    assert done.returncode == 0, done.stderr
    assert "tool" in done.stdout
    assert "coder" in done.stdout
    assert "forecast: peak memory" in done.stderr
    manifest = json.loads((out / "rammerge.json").read_text())
    assert list(manifest["sources"]) == ["base", "coder", "tool"]
    assert manifest["recipe"]["preset"] == "authors-cli"
    assert (manifest["method"]["params"]["r"], manifest["method"]["params"]["alpha"]) == (0.05, 1.5)
    assert set(manifest["files"]) >= {"model.safetensors", "config.json", "README.md"}
    assert rammerge("verify", out).returncode == 0
    refused = rammerge(*words)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "--force" in refused.stderr
    assert rammerge(*words, "--force").returncode == 0
    (out / "config.json").write_text("{}")
    damaged = rammerge("verify", out)
    assert damaged.returncode == 1
    assert "config.json differs" in damaged.stderr


def test_inspect_prints_tables_and_writes_json(models: list[Path], tmp_path: Path) -> None:
    base, *agents = models
    file = tmp_path / "overlap.json"
    done = rammerge("inspect", "--base", base, *agents, "--json", file)
    assert done.returncode == 0, done.stderr
    assert "Density by rule" in done.stdout
    content = json.loads(file.read_text())
    for name, density in (("tool", 0.1), ("code", 0.4)):
        assert content["summary"][name]["density"] == pytest.approx(density, abs=0.03)
        row = content["summary"][name]
        assert row["active"] == row["unique"] + row["shared"] == sum(row["co_active"])
    # The record is beside the advice, whatever it says.
    assert f"likely to win: {content['advice']['best']}" in done.stdout
    for record in content["advice"]["records"]:
        assert f"record with every {record['held_out']} left out in turn: {record['hits']} hits" in done.stdout
    printed = rammerge("inspect", "--base", base, *agents, "--json", "-")
    assert json.loads(printed.stdout) == content


def test_methods_lists_every_preset() -> None:
    listed = json.loads(rammerge("methods", "--json").stdout)
    assert set(listed["ram_plus"]["presets"]) == {"paper", "authors-cli", "authors-readme", "mergekit"}
    assert listed["ram"]["parameters"]["epsilon"]["default"] == 1e-5
    text = rammerge("methods").stdout
    assert all(name in text for name in listed)


def imported_by(*words: object) -> set[str]:
    """Return the packages, other than Python's own and ours, that a command imports: what takes time at its start."""
    code = (
        "import sys; before = set(sys.modules); from flows.cli.program import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "files = {name: getattr(sys.modules[name], '__file__', None) or '' for name in set(sys.modules) - before}\n"
        "print('packages', *{name.partition('.')[0] for name, file in files.items() if 'site-packages' in file})"
    )
    command = [sys.executable, "-c", code, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    heading, *packages = done.stdout.splitlines()[-1].split()
    assert heading == "packages"
    return set(packages)


def test_help_is_quick_since_it_imports_what_it_prints_with_and_nothing_else() -> None:
    parser = {"typer", "shellingham", "annotated_doc"}
    printing = {"rich", "attr", "markdown_it", "mdurl", "pygments"}
    assert imported_by("--help") <= parser | printing


def test_the_library_never_imports_the_pipeline() -> None:
    code = (
        "import sys, rammerge.api\n"
        "print([m for m in ('prefect', 'mlflow', 'lm_eval', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unforeseen_error_is_one_sentence_unless_debugged() -> None:
    code = (
        "import sys, flows.cli.program, rammerge.publishing.manifest\n"
        "def broken(path): raise ZeroDivisionError('nobody\\nexpected this')\n"
        "rammerge.publishing.manifest.verify = broken\n"
        "sys.argv = ['rammerge', 'verify', 'x', *sys.argv[1:]]\n"
        "from flows.cli.program import main; main()"
    )
    plain = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (plain.returncode, plain.stdout) == (1, "")
    assert plain.stderr == (
        "error: unexpected ZeroDivisionError: nobody expected this; run again with --debug for details\n"
    )
    debugged = subprocess.run([sys.executable, "-c", code, "--debug"], capture_output=True, text=True, check=False)
    assert "Traceback" in debugged.stderr


def test_the_process_ends_with_its_code_and_all_its_output() -> None:
    listed = rammerge("methods", "--json")
    assert listed.returncode == 0
    assert "ram_plus" in json.loads(listed.stdout)
    refused = rammerge("verify", "nowhere")
    assert (refused.returncode, refused.stdout) == (2, "")
    helped = rammerge()
    assert helped.returncode == 0 and "merge" in helped.stdout


def test_output_that_cannot_be_written_is_no_success() -> None:
    with Path("/dev/full").open("w") as full:
        done = rammerge("methods", "--json", stdout=full)
    assert done.returncode == 1
    assert done.stderr.startswith("error: no space left")


@pytest.mark.parametrize(
    ("parse", "given", "message"),
    [
        (parse_weights, ["tool"], "--weight 'tool' is not of the form AGENT=NUMBER"),
        (parse_weights, ["tool=much"], "--weight 'tool=much' is not of the form"),
        (parse_weights, ["tool=1", "tool=2"], "--weight tool is given twice"),
        (parse_tensor_rules, ["*embed*"], "is not of the form PATTERN=MODEL"),
        (parse_tensor_rules, ["*embed*=r:"], "'r=' is not of the form KEY=VALUE"),
    ],
)
def test_what_is_no_weight_or_rule(parse: Callable[[list[str]], object], given: list[str], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        parse(given)


def test_names_of_agents(tmp_path: Path) -> None:
    assert name_agents(["/a/tool", "/b/tool", "x=/c", "org/model@main", "/d/base"]) == {
        "tool": "/a/tool",
        "tool-2": "/b/tool",
        "x": "/c",
        "model": "org/model@main",
        "base-2": "/d/base",
    }
    odd = tmp_path / "a=b"
    odd.mkdir()
    assert name_agents([str(odd)]) == {"a=b": str(odd)}
    with pytest.raises(InputError, match="two models are named 'x'"):
        name_agents(["x=/a", "x=/b"])


def test_groups_of_checkpoints(tmp_path: Path) -> None:
    named = name_agents(["tool=/a,org/b@main", "code=/c"])
    assert split_groups(named) == (
        {"tool.1": "/a", "tool.2": "org/b@main", "code": "/c"},
        {"tool": ["tool.1", "tool.2"]},
    )
    odd = tmp_path / "a,b"
    odd.mkdir()
    assert split_groups(name_agents([str(odd), f"x={odd}"])) == ({"a,b": str(odd), "x": str(odd)}, {})
    for given, message in {
        "/a,/b": "the checkpoints /a,/b are a group, which needs a name; write NAME=/a,/b",
        "x=/a,": "--agent 'x=/a,' names an empty member",
    }.items():
        with pytest.raises(InputError, match=message):
            split_groups(name_agents([given]))
    with pytest.raises(InputError, match=r"the name 'x\.1' of a member of 'x' is an agent's"):
        split_groups(name_agents(["x=/a,/b", "x.1=/c"]))


def test_groups_and_steps_of_a_merge(models: list[Path], tmp_path: Path) -> None:
    base, tool, code = models
    out = tmp_path / "out"
    done = rammerge("merge", "--base", base, "--agent", f"both={tool},{code}", "--out", out, "--then", "svc:alpha=0.5")
    assert done.returncode == 0, done.stderr
    settings = json.loads((out / "rammerge.json").read_text())["recipe"]
    assert settings["groups"] == {"both": ["both.1", "both.2"]}
    assert settings["then"] == [{"svc": {"alpha": 0.5}}]
    assert parse_steps(["svc", "svc:alpha=1e-3"]) == [{"svc": {}}, {"svc": {"alpha": 1e-3}}]
    with pytest.raises(InputError, match=r"--then 'alpha' is not of the form KEY=VALUE"):
        parse_steps(["svc:alpha"])


def test_weights_and_rules_for_tensors(models: list[Path], tmp_path: Path) -> None:
    base, tool, code = models
    words = ("merge", "--base", base, "--agent", tool, "--agent", code, "--out", tmp_path / "out")
    rules = ("--weight", "tool=0.5", "--tensors", "*embed_tokens*=base", "--tensors", "*.layers.[0-9].*=r:0.0,alpha:1")
    done = rammerge(*words, "--method", "ram_plus", *rules)
    assert done.returncode == 0, done.stderr
    recipe = json.loads((tmp_path / "out" / "rammerge.json").read_text())["recipe"]
    assert recipe["weights"] == {"tool": 0.5}
    assert recipe["tensors"] == [
        {"match": "*embed_tokens*", "use": "base"},
        {"match": "*.layers.[0-9].*", "params": {"r": 0.0, "alpha": 1}},
    ]


def test_progress_of_work_without_elements_is_all_of_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "_PLAIN_EVERY_SECONDS", 0.0)
    with terminal.progress_display() as progress:
        progress(Progress("merge", 0, 0))
    assert capsys.readouterr().err == "merge: 100% of 0 elements\n"


def test_settings_are_yaml_scalars() -> None:
    parsed = parse_settings(["r=0.1", "epsilon=1e-6", "scope=tensor", "ulps=2"])
    assert parsed == {"r": 0.1, "epsilon": 1e-6, "scope": "tensor", "ulps": 2}
    for wrong in (["r"], ["=1"], ["r="], ["r=1", "r=2"], ["r=[1"], ["r=2024-13-01"]):
        with pytest.raises(InputError, match="--set"):
            parse_settings(wrong)


def test_bad_input_is_refused_before_anything_slow_is_imported(tmp_path: Path) -> None:
    words = ("merge", "--base", tmp_path / "no", "--agent", tmp_path / "no2", "--out", tmp_path / "out")
    done = rammerge(*words, "--method", "rma")
    assert done.returncode == 2
    assert "did you mean 'ram'" in done.stderr
    assert not imported_by(*words, "--method", "rma") & {"torch", "transformers", "numpy", "huggingface_hub"}
    assert list(tmp_path.iterdir()) == []
