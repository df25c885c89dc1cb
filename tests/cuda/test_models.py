"""Contract: a GPU's model gets the file's bytes by `into`, reads prompts as the CPU's does, and answers alike.

Activations differ by float32's rounding only. Greedy answers of the demo's models are the CPU's, but for one in thirty:
where two tokens are equally likely to float32's precision, the order of additions decides.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import rammerge
from evaluation.backends.transformers import load, threads_for, try_out
from rammerge.activations.prompts import Prompts
from rammerge.activations.recording import record
from rammerge.checkpoints.checkpoint import open_checkpoint
from tests.cuda.families import DEVICE
from tests.engine.models import read
from tests.evaluation.made import write_tokenizer
from tests.fixtures.models import save_agents, save_model

pytestmark = pytest.mark.cuda

ZOO = Path(__file__).resolve().parents[2] / "examples" / "zoo"
TEXTS = ("abc", "jihgfedcba", "aab")


@pytest.fixture
def family(tmp_path: Path) -> rammerge.Family:
    base = save_model(tmp_path / "base", dtype=torch.float32)
    write_tokenizer(base, characters="abcdefghij")
    (tmp_path / "prompts.txt").write_text("\n".join(TEXTS) + "\n")
    return rammerge.Family.open(base, save_agents(base, tmp_path, {"tool": 0.2, "code": 0.5}))


@pytest.mark.parametrize("held", [False, True])
def test_into_a_model_on_the_gpu(family: rammerge.Family, tmp_path: Path, held: bool) -> None:
    for method in ("ram_plus", "ties", "della", "awd"):
        settings: dict[str, Any] = {"method": method, "dtype": "bfloat16", "rounding": "stochastic", "seed": 5}
        report = rammerge.merge(family, out=tmp_path / method, **settings)
        model = transformers.AutoModelForCausalLM.from_pretrained(family.base.path, dtype=torch.bfloat16).to(DEVICE)
        trial = rammerge.merge(family.held() if held else family, into=model, device=DEVICE, **settings)
        found = model.state_dict()
        for name, tensor in read(report.path).items():
            assert torch.equal(found[name].cpu().view(torch.uint8), tensor.view(torch.uint8)), name
        assert (trial.survival, trial.factors) == (report.manifest.survival, report.manifest.factors)


def test_a_model_elsewhere_is_named(family: rammerge.Family) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(family.base.path, dtype=torch.bfloat16)
    with pytest.raises(rammerge.InputError, match=r"is not in the memory of cuda as a whole; load the model there"):
        rammerge.merge(family, into=model, device=DEVICE, dtype="bfloat16")


def test_recordings_are_those_of_the_cpu(family: rammerge.Family, tmp_path: Path) -> None:
    prompts, base = Prompts.read(tmp_path / "prompts.txt"), open_checkpoint(family.base.path)
    expected, found = (record(base, prompts, tmp_path / device, device=device) for device in ("cpu", DEVICE))
    assert found.layers == expected.layers
    for layer in found.layers.values():
        whole = slice(0, found.tokens), slice(0, layer.width)
        torch.testing.assert_close(found.read(layer, *whole), expected.read(layer, *whole), rtol=1e-4, atol=1e-5)


def test_a_merge_by_prompts(family: rammerge.Family, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"method": "esm", "prompts": tmp_path / "prompts.txt"}
    merged = {
        device: read(rammerge.merge(family, out=tmp_path / "merged" / device, device=device, **settings).path)
        for device in ("cpu", DEVICE)
    }
    before = read(family.base.path)
    for name, values in merged["cpu"].items():
        change = (values - before[name]).norm()
        assert float((merged[DEVICE][name] - values).norm()) <= 1e-3 * float(change) + 1e-6, name


def questions(limit: int) -> list[str]:
    """Return prompts of the demo's suites, as many of each."""
    found = []
    for file in sorted((ZOO.parents[1] / "evaluation" / "suites" / "bundled").glob("zoo*/*validation*.jsonl")):
        lines = [json.loads(line) for line in file.read_text().splitlines()[:limit]]
        found += [line["prompt"] for line in lines]
    return found


def answers(model_dir: Path, device: str, prompts: Sequence[str]) -> list[str]:
    loaded, said = load(model_dir, dtype="float32", device=device), []
    with torch.inference_mode(), threads_for(loaded.model):
        for prompt in prompts:
            ids = loaded.tokenizer(prompt, return_tensors="pt").input_ids.to(device)
            tokens = loaded.model.generate(ids, max_new_tokens=16, do_sample=False)
            said.append(loaded.tokenizer.decode(tokens[0, ids.shape[1] :]))
    return said


def test_the_demos_models_answer_as_on_the_cpu(tmp_path: Path) -> None:
    agents = {name: ZOO / "checkpoints" / name for name in ("tool", "memory", "code")}
    merged = rammerge.merge(ZOO / "checkpoints" / "base", agents, out=tmp_path / "merged", method="ram_plus").path
    shutil.copy(ZOO / "checkpoints" / "base" / "tokenizer.json", merged)
    prompts = questions(10)
    expected, found = (answers(merged, device, prompts) for device in ("cpu", DEVICE))
    assert len(set(expected)) >= 15
    assert sum(one != other for one, other in zip(expected, found, strict=True)) <= 1


def test_a_model_is_tried_out_on_the_gpu(family: rammerge.Family) -> None:
    assert try_out(family.base.path, device=DEVICE) == try_out(family.base.path, device="cpu")
