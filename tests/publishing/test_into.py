"""Contract: a merge into a loaded model gives its parameters the bytes that the written file has, and writes nothing.

Names, shapes, dtypes and ties that do not fit are one sentence. Weights that are held change no byte.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

import rammerge
from rammerge.errors import InputError
from rammerge.system.toolchain import compiler
from tests.engine.models import read
from tests.fixtures.models import save_agent

TinyModel = Callable[[str], Path]


@pytest.fixture(scope="module")
def families(tiny_model: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, rammerge.Family]:
    """A family of an untied and of a tied architecture."""
    made = {}
    for kind in ("llama", "tied"):
        root, base = tmp_path_factory.mktemp(kind), tiny_model(kind)
        agents = {name: root / name for name in ("tool", "code")}
        for seed, path in enumerate(agents.values()):
            save_agent(base, path, density=0.4, seed=seed)
        made[kind] = rammerge.Family.open(base, agents)
    return made


def loaded(family: rammerge.Family, dtype: torch.dtype) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(family.base.path, dtype=dtype)


METHODS: list[dict[str, Any]] = [
    {"method": "ram_plus", "r": 0.5},
    {"method": "ties"},
    {"method": "della"},
    {"method": "awd", "weights": {"tool": 0.5}},
]


@pytest.mark.parametrize("kind", ["llama", "tied"])
@pytest.mark.parametrize("given", METHODS, ids=lambda given: given["method"])
def test_parameters_are_those_of_the_file(
    families: Mapping[str, rammerge.Family], tmp_path: Path, kind: str, given: dict[str, Any]
) -> None:
    family = families[kind]
    for dtype in ("bfloat16", "float32"):
        settings = {**given, "dtype": dtype, "rounding": "stochastic", "seed": 5}
        report = rammerge.merge(family, out=tmp_path / dtype, **settings)
        model = loaded(family, getattr(torch, dtype))
        before = sorted(tmp_path.rglob("*"))
        trials = [rammerge.merge(each, into=model, **settings) for each in (family, family.held())]
        assert sorted(tmp_path.rglob("*")) == before
        found = model.state_dict()
        for name, tensor in read(report.path).items():
            assert torch.equal(found[name].view(torch.uint8), tensor.view(torch.uint8)), name
        assert model.get_output_embeddings().weight.data_ptr() == found["lm_head.weight"].data_ptr()
        for trial in trials:
            assert (trial.survival, trial.factors) == (report.manifest.survival, report.manifest.factors)
        assert str(trials[0].survival.agents["tool"].active) in str(trials[0]).replace(",", "")


@pytest.mark.skipif(compiler() is None, reason="compiles C++")
@pytest.mark.usefixtures("compiled_here")
def test_compiled_code_reads_held_weights(families: Mapping[str, rammerge.Family], tmp_path: Path) -> None:
    family = families["tied"]
    model = loaded(family, torch.bfloat16)
    trial = rammerge.merge(family.held(), into=model, method="ram", dtype="bfloat16", compile="always")
    assert not trial.warnings
    merged = rammerge.merge(family, out=tmp_path / "out", method="ram", dtype="bfloat16", compile="never").path
    expected, found = load_file(merged / "model.safetensors"), model.state_dict()
    assert all(torch.equal(found[name].view(torch.uint8), expected[name].view(torch.uint8)) for name in expected)


def test_what_does_not_fit_is_one_sentence(
    families: Mapping[str, rammerge.Family], monkeypatch: pytest.MonkeyPatch
) -> None:
    family, tied = families["llama"], families["tied"]
    model = loaded(family, torch.bfloat16)
    with pytest.raises(InputError, match=r"is bfloat16 and the merge's float32; give the model's dtype to the merge"):
        rammerge.merge(family, into=model)
    with pytest.raises(InputError, match=r"the model has no tensor '.*'; load a model of the base's architecture"):
        rammerge.merge(tied, into=model, dtype="bfloat16")
    with pytest.raises(InputError, match=r"the model has '.*', which the base lacks"):
        rammerge.merge(
            family,
            into=torch.nn.ModuleDict({"model": model.model, "lm_head": model.lm_head, "more": torch.nn.Linear(1, 1)}),
            dtype="bfloat16",
        )
    model.lm_head.weight = model.model.embed_tokens.weight
    with pytest.raises(InputError, match=r"the model ties '.*' to '.*', which the merge keeps apart"):
        rammerge.merge(family, into=model, dtype="bfloat16")
    model.resize_token_embeddings(90)
    with pytest.raises(InputError, match=r"'.*' has the shape \[90, 16\] and the base's \[96, 16\]"):
        rammerge.merge(family, into=model, dtype="bfloat16")
    with pytest.raises(InputError, match="'iso_c' merges whole matrices by way of a file"):
        rammerge.merge(family, into=model, method="iso_c", dtype="bfloat16")
    for given in ({}, {"out": "a", "into": model}):
        with pytest.raises(InputError, match="one of the two"):
            rammerge.merge(family, **given)
    with pytest.raises(InputError, match="a family has its agents"):
        rammerge.merge(family, {"tool": "tool"}, into=model)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "MemAvailable: 1 kB\n")
    with pytest.raises(InputError, match=r"takes .* of memory is free; merge from their files"):
        family.held()
