"""Contract: a method that an installed package offers is used by name, as any other, eagerly and compiled."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rammerge.cli.completing import complete_method
from rammerge.system.toolchain import compiler
from tests.fixtures.models import save_agents, save_model

ROOT = Path(__file__).parents[2]
NAME = "largest-of-all"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    base = save_model(root / "base")
    return {"base": base, **save_agents(base, root, {"tool": 0.1, "code": 0.4})}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory on the import path with an installed package: the example, under an entry point."""
    site = tmp_path_factory.mktemp("site")
    shutil.copy(ROOT / "examples" / "python" / "own_method.py", site / "own_package.py")
    info = site / "own_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[rammerge.methods]\n{NAME} = own_package:LARGEST\n")
    return site


def rammerge(site: Path, *words: object) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    command = [sys.executable, "-m", "rammerge", *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def largest(models: dict[str, Path], name: str, scale: float) -> torch.Tensor:
    """Return the merged tensor, worked out in float64."""
    base, tool, code = (
        load_file(models[model] / "model.safetensors")[name].double() for model in ("base", "tool", "code")
    )
    first, second = tool - base, code - base
    merged: torch.Tensor = base + scale * torch.where(second.abs() > first.abs(), second, first)
    return merged


def test_an_installed_method_merges_eagerly_and_compiled(
    models: dict[str, Path], site: Path, tmp_path: Path, rammerge_home: Path
) -> None:
    line = ("merge", "--base", models["base"], "--agent", models["tool"], "--agent", models["code"], "--method", NAME)
    rammerge(site, *line, "--set", "scale=0.5", "--compile", "never", "--out", tmp_path / "eager")
    eager = tmp_path / "eager" / "model.safetensors"
    for name, tensor in load_file(eager).items():
        assert torch.allclose(tensor.double(), largest(models, name, 0.5), rtol=1e-6, atol=1e-9), name
    manifest = json.loads((tmp_path / "eager" / "rammerge.json").read_text())
    assert manifest["method"]["method"] == NAME
    assert len(manifest["method"]["code"]) == 64, "the name says nothing of what the package contains today"
    if compiler() is None:
        return
    rammerge(site, *line, "--set", "scale=0.5", "--compile", "always", "--out", tmp_path / "compiled")
    assert list((rammerge_home / "kernels").glob("*.so"))
    assert (tmp_path / "compiled" / "model.safetensors").read_bytes() == eager.read_bytes()


def test_an_installed_method_is_listed_and_completed(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = json.loads(rammerge(site, "methods", "--json"))
    assert listed[NAME]["presets"]["half"]["params"]["scale"] == 0.5
    monkeypatch.syspath_prepend(site)
    assert complete_method("larg") == [NAME]
    assert "own_package" not in sys.modules, "a completion runs no code of others"
