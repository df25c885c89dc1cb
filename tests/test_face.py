"""Contract: `import rammerge` is light, and its functions do what the commands do, from paths and names alone."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import rammerge
from flows.run.planning import plan
from rammerge import InputError
from tasks.steps.methods import MethodRef
from tests.engine.models import read, sparse_family, write_family
from tests.fixtures.fifos import fifo

EXAMPLES = Path(__file__).parent.parent / "examples"
Models = tuple[Path, dict[str, Path | str]]
SHAPES = {"embed.weight": (64, 32), "layer.weight": (32, 32)}


@pytest.fixture
def models(tmp_path: Path) -> Models:
    base, agents = write_family(tmp_path, *sparse_family(SHAPES, [0.2, 0.5]))
    return base.path, {"tool": agents["agent0"].path, "code": str(agents["agent1"].path)}


def test_importing_it_brings_nothing_with_it() -> None:
    code = (
        "import sys; before = set(sys.modules); import rammerge; dir(rammerge)\n"
        "print(sorted(name for name in set(sys.modules) - before if not name.startswith('rammerge')))\n"
        "print(sorted(name for name in set(sys.modules) - before if name.startswith('rammerge')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "['rammerge', 'rammerge.version']"]


def test_every_name_is_there_whatever_was_imported_before() -> None:
    import rammerge.rules

    assert sorted(dir(rammerge)) == sorted(rammerge.__all__)
    assert all(getattr(rammerge, name) is not None for name in rammerge.__all__)
    assert callable(rammerge.merge)
    assert callable(rammerge.methods)
    with pytest.raises(AttributeError, match="no attribute 'marge'"):
        _ = rammerge.marge


def _refused_with_a_file_elsewhere(model: Path) -> None:
    file = model / "rammerge.json"
    written = file.read_text()
    for name in ("/etc/hostname", "../other"):
        content = json.loads(written)
        content["files"][name] = {"size": 1, "sha256": ""}
        file.write_text(json.dumps(content))
        with pytest.raises(InputError, match=r"rammerge\.json is damaged; merge again"):
            rammerge.verify(model)
    file.unlink()
    with fifo(file, written), pytest.raises(InputError, match="is damaged; merge again"):
        rammerge.verify(model)
    file.unlink()
    file.write_text(written)


def test_measure_merge_and_verify(models: Models, tmp_path: Path) -> None:
    base, agents = models
    overlap = rammerge.measure_overlap(base=base, agents=agents)
    assert [row["agent"] for row in overlap.rows()] == ["tool", "code"]
    assert all(row["active"] == row["unique"] + row["shared"] for row in overlap.rows())
    assert "Density by rule" in str(overlap)
    assert "<table>" in overlap._repr_html_()
    report = rammerge.merge(
        base=base, agents=agents, method="ram_plus", preset="paper", r=0.3, dtype="bfloat16", out=tmp_path / "merged"
    )
    assert report.manifest.settings.params["r"] == 0.3
    assert "changed in the merge" in str(report)
    verified = rammerge.verify(str(tmp_path / "merged"))
    assert verified == report.manifest
    _refused_with_a_file_elsewhere(tmp_path / "merged")
    assert list(verified.sources) == ["base", "tool", "code"], "the order of summation"
    lines = repr(verified).splitlines()
    assert len(lines) < 15
    assert all(str(source) in repr(verified) for source in (base, *agents.values()))
    assert "ram_plus, preset paper: " in repr(verified)
    assert "r 0.3" in repr(verified)
    assert "<table>" in verified._repr_html_()
    opened = rammerge.open_checkpoint(report.path)
    again = rammerge.merge(opened, agents, method="average", out=tmp_path / "again", memory="2GiB", shard_size="4KB")
    assert len(list(again.path.glob("*.safetensors"))) > 1


def test_methods_are_plain_data_that_prints() -> None:
    listed = rammerge.methods()
    assert json.loads(json.dumps(listed))["ram_plus"]["presets"]["paper"]["params"]["alpha"] == 2.0
    assert "  preset paper: r = 0.1" in str(listed)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "ram_puls"}, r"unknown method 'ram_puls' \(did you mean 'ram_plus'\?\)"),
        ({"method": "ram_plus", "aplha": 1}, r"no parameter 'aplha' \(did you mean 'alpha'\?\)"),
        ({"dtpye": "bfloat16"}, r"no parameter 'dtpye' \(did you mean 'dtype'\?\)"),
        ({"dtype": "bfloat61"}, r"dtype 'bfloat61' is unknown \(did you mean 'bfloat16'\?\)"),
        ({"resize": "comon"}, r"resize 'comon' is unknown \(did you mean 'common'\?\)"),
        ({"memory": "much"}, "memory 'much': a size is a number with a unit"),
        ({"tokenizer": "tol"}, r"tokenizer from 'tol': no such agent \(did you mean 'tool'\?\)"),
        ({"threads": 0}, "threads 0 is too small"),
        ({"method": "own:RULE"}, "runs the code of the module 'own', which is not trusted"),
    ],
)
def test_mistakes_are_the_same_sentences(models: Models, tmp_path: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        rammerge.merge(*models, out=tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


def test_a_recipe_is_loaded() -> None:
    assert rammerge.load_recipe(str(EXAMPLES / "zoo.yaml")).name == "zoo"


@pytest.mark.parametrize("example", ["merge.py", "own_method.py"])
def test_examples_run(example: str, tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "python" / example), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "changed in the merge" in done.stdout
    rammerge.verify(tmp_path / "out")


OWN = """
from rammerge import Method, Params, Update

class FirstParams(Params):
    pass

def first(block):
    return Update(block.deltas[0] * FACTOR)

FIRST = Method(name="first", summary="The first agent.", source="a test", params=FirstParams, kernel=first)
"""


def write_recipe(directory: Path, models: Models, *, trust: bool = True) -> Path:
    base, agents = models
    content = {
        "name": "own",
        "base": str(base),
        "agents": {name: str(path) for name, path in agents.items()},
        "merges": [{"method": "face_rules:FIRST"}],
        "evaluation": {"suites": ["zoo_tool"]},
    }
    (directory / "recipe.yaml").write_text(yaml.safe_dump(content | ({"trust": ["face_rules"]} if trust else {})))
    return directory / "recipe.yaml"


def planned(directory: Path, models: Models, monkeypatch: pytest.MonkeyPatch) -> MethodRef:
    monkeypatch.setattr(sys, "path", [place for place in sys.path if not (Path(place) / "face_rules.py").exists()])
    monkeypatch.delitem(sys.modules, "face_rules", raising=False)
    (variant,) = plan(write_recipe(directory, models)).variants.values()
    return variant


def test_a_method_beside_a_recipe_needs_trust_and_its_code_counts(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "face_rules.py").write_text(f"FACTOR = 1.0\n{OWN}")
    with pytest.raises(InputError, match=r"recipe.yaml:\d+: merges\[0\].*is not trusted"):
        plan(write_recipe(tmp_path, models, trust=False))
    variant = planned(tmp_path, models, monkeypatch)
    report = rammerge.merge(*models, method=variant.resolved(), out=tmp_path / "out")
    assert report.manifest.settings.method == "face_rules:FIRST"
    merged, agent = read(report.path), read(Path(models[1]["tool"]))
    assert all(torch.equal(merged[name], agent[name].float()) for name in agent)

    other = tmp_path / "other"
    other.mkdir()
    (other / "face_rules.py").write_text(f"FACTOR = 2.0\n{OWN}")
    changed = planned(other, models, monkeypatch)
    assert changed.identity["code"] != variant.identity["code"]
    assert {**changed.identity, "code": ""} == {**variant.identity, "code": ""}
    monkeypatch.delitem(sys.modules, "face_rules")
