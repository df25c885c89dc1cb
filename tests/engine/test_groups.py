"""Contract: a group of checkpoints is merged exactly as the float32 checkpoint that averaging them would write.

That holds for statistics too, eagerly and compiled. Nothing of the average is written.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

import rammerge
from rammerge.checkpoints.checkpoint import open_checkpoint
from rammerge.checkpoints.family import Family
from rammerge.engine.options import MergeOptions
from rammerge.engine.passes.measuring import measure_overlap
from rammerge.errors import InputError
from rammerge.publishing.making import merge_family
from rammerge.publishing.report import MergeReport
from rammerge.rules import ResolvedMethod, resolve
from rammerge.system.toolchain import compiler
from tests.engine.models import DATA_FREE, Models, read, sparse_family, weight_bytes, write_family

SHAPES = {"embed.weight": (64, 32), "layer.weight": (32, 32), "norm.weight": (32,), "scalar": ()}
GROUPS = {"tool": ["agent0", "agent2", "agent3"]}


@pytest.fixture
def models(tmp_path: Path) -> Models:
    return write_family(tmp_path, *sparse_family(SHAPES, [0.3, 0.5, 0.6, 0.4]))


@pytest.fixture
def averaged(models: Models, tmp_path: Path) -> Family:
    """The same family with the group's average on the disk."""
    base, agents = models
    group = {name: agents[name] for name in GROUPS["tool"]}
    written = merge_family(Family.open(base, group), resolve("average"), tmp_path / "average").path
    return Family.open(base, {"tool": open_checkpoint(written), "agent1": agents["agent1"]})


def grouped(models: Models) -> Family:
    return Family.open(models[0], models[1], groups=GROUPS)


def merged(family: Family, method: ResolvedMethod, out: Path, **options: Any) -> MergeReport:
    return merge_family(family, method, out, MergeOptions(dtype="float32", **options))


@pytest.mark.parametrize("method", DATA_FREE)
def test_merged_as_if_the_average_had_been_written(
    models: Models, averaged: Family, tmp_path: Path, method: str
) -> None:
    found = merged(grouped(models), resolve(method), tmp_path / "found", compile="never")
    wanted = merged(averaged, resolve(method), tmp_path / "wanted", compile="never")
    assert {name: tensor.tolist() for name, tensor in read(found.path).items()} == {
        name: tensor.tolist() for name, tensor in read(wanted.path).items()
    }
    assert found.manifest.survival == wanted.manifest.survival
    assert found.manifest.factors == wanted.manifest.factors


@pytest.mark.skipif(compiler() is None, reason="compiles C++")
@pytest.mark.usefixtures("compiled_here")
@pytest.mark.parametrize("method", ["ram_plus", "ties"])
def test_compiled_and_eager(models: Models, tmp_path: Path, method: str) -> None:
    eager = merged(grouped(models), resolve(method), tmp_path / "eager", compile="never")
    fused = merged(grouped(models), resolve(method), tmp_path / "fused", compile="always")
    assert weight_bytes(fused.path) == weight_bytes(eager.path)
    assert not [warning for warning in fused.warnings if "eagerly" in warning]


def test_overlap_is_of_the_average(models: Models, averaged: Family) -> None:
    found, wanted = measure_overlap(grouped(models)), measure_overlap(averaged)
    assert found.agents == ("tool", "agent1")
    assert found.to_json()["by_tensor"] == wanted.to_json()["by_tensor"]
    assert found.gram == wanted.gram
    assert found.densities["tool"] == wanted.densities["tool"]


def test_groups_are_recorded_and_belong_to_the_identity(models: Models, tmp_path: Path) -> None:
    settings = merged(grouped(models), resolve("ram"), tmp_path / "out").manifest.settings
    assert settings.groups == GROUPS
    assert "Agent tool is the mean of agent0, agent2, agent3." in (tmp_path / "out" / "README.md").read_text()
    manifest = merge_family(Family.open(*models), resolve("ram"), tmp_path / "apart").manifest
    assert manifest.settings.groups is None


def test_python_takes_a_list(models: Models, tmp_path: Path) -> None:
    base, agents = models
    group = [agents[name].path for name in GROUPS["tool"]]
    report = rammerge.merge(base.path, {"tool": group, "agent1": agents["agent1"]}, out=tmp_path / "out", method="ties")
    expected = merged(grouped(models), resolve("ties"), tmp_path / "expected")
    assert all(torch.equal(values, read(expected.path)[name]) for name, values in read(report.path).items())
    assert report.manifest.settings.groups == {"tool": ["tool.1", "tool.2", "tool.3"]}
    assert list(report.manifest.sources) == ["base", "tool.1", "tool.2", "tool.3", "agent1"]
    with pytest.raises(InputError, match=r"the name 'tool\.1' of a member of 'tool' is an agent's; rename that agent"):
        rammerge.merge(base.path, {"tool": group, "tool.1": agents["agent1"]}, out=tmp_path / "other")


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"agent1": ["agent0", "agent2"]}, "the group 'agent1' has the name of a model"),
        ({"tool": ["agent0", "nobody"]}, r"the group 'tool' has the members \['agent0', 'nobody'\]; name agents"),
        ({"tool": ["agent0", "agent0"]}, "each in one group"),
        ({"tool": ["agent0", "agent1"], "code": ["agent1", "agent2"]}, "the group 'code' has the members"),
        ({"tool": []}, r"the group 'tool' has the members \[\]"),
    ],
)
def test_groups_that_make_no_sense_are_refused(models: Models, groups: dict[str, list[str]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Family.open(*models, groups=groups)
