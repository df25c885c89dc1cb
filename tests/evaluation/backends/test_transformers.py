"""Contract: a model is loaded from its own files alone, says something or says why not, and takes few threads."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from evaluation.backends.transformers import load, threads_for, try_out
from rammerge.errors import InputError
from tests.evaluation.made import write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


def test_a_model_that_runs_says_something_finite(model: Path) -> None:
    text, finite = try_out(model, device="cpu")
    assert finite
    assert text


def test_logits_that_are_not_finite_are_noticed(model: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(model, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"][3] = float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    assert not try_out(broken, device="cpu")[1]


def test_a_model_keeps_its_stored_dtype_unless_told_otherwise(model: Path) -> None:
    assert load(model, dtype="auto", device="cpu").model.dtype == torch.float32
    assert load(model, dtype="bfloat16", device="cpu").model.dtype == torch.bfloat16
    with pytest.raises(InputError, match=r"unknown dtype 'bf16' \(did you mean"):
        load(model, dtype="bf16", device="cpu")


@pytest.mark.parametrize(("parameters", "expected"), [(1_000_000, 1), (500_000_000, 3)])
def test_only_a_large_model_gets_several_threads(parameters: int, expected: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with threads_for(SimpleNamespace(num_parameters=lambda: parameters)):
            assert torch.get_num_threads() == expected
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
