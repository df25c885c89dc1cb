"""Contract: float32 weights of an agent are rounded to the base's dtype by one rule, whatever file they come from."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.distributed.tensor import Shard

from rammerge.checkpoints.checkpoint import Checkpoint, open_checkpoint
from rammerge.checkpoints.family import Family
from rammerge.checkpoints.fetch import fetch
from tests.fixtures.models import save_agent, save_model
from tests.fixtures.sharded import save_dtensors
from tests.fixtures.states import State, equal, pickled, save_distributed, weights

pytestmark = pytest.mark.filterwarnings("ignore")

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


def as_safetensors(directory: Path, base: Checkpoint, state: State) -> Path:
    shutil.copytree(base.path, directory)
    save_file(state, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def as_pickle(directory: Path, base: Checkpoint, state: State) -> Path:
    return pickled(shutil.copytree(base.path, directory), state)


def as_verl(directory: Path, _: Checkpoint, state: State) -> Path:
    return save_dtensors(directory, state, {"fsdp": 2}, [Shard(0)])


def as_distributed(directory: Path, _: Checkpoint, state: State) -> Path:
    return save_distributed(directory, {"model": state})


FORMS = (as_safetensors, as_pickle, as_verl, as_distributed)
Form = Callable[[Path, Checkpoint, State], Path]


@pytest.fixture(scope="module", params=[torch.bfloat16, torch.float16, torch.float32], ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    found: torch.dtype = request.param
    return found


@pytest.fixture(scope="module", params=["tied", "llama"])
def stored(request: pytest.FixtureRequest, dtype: torch.dtype, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_checkpoint(save_model(tmp_path_factory.mktemp("base") / "model", request.param, dtype=dtype))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("with_head", [False, True], ids=["stored once", "stored twice"])
def test_every_form_is_rounded_as_the_base_is_stored(
    stored: Checkpoint, tmp_path: Path, form: Form, dtype: torch.dtype, with_head: bool
) -> None:
    trained = weights(save_agent(stored.path, tmp_path / "agent"))
    masters = {name: tensor.float() + 1e-5 for name, tensor in trained.items()}
    if with_head:  # trainers save the state dict of the live model, where a tied head has a name too
        masters = {HEAD: masters[EMBEDDING].clone(), **masters}
    source = form(tmp_path / "masters", stored, masters)

    agent = fetch(str(source), base=stored)
    view = Family.open(stored, {"agent": agent}).members["agent"]

    found = weights(agent)
    assert view.tensors.keys() == stored.tensors.keys()
    expected = {name: masters[name].to(dtype) for name in stored.tensors}
    assert equal({name: found[name] for name in stored.tensors}, expected)
    said = [note for note in agent.notes if "rounded" in note]
    assert len(said) == (dtype != torch.float32)
    if said:
        name = str(dtype).removeprefix("torch.")
        assert said == [f"its {len(masters)} float32 tensors were rounded to {name}, as exports are; give the base in "
                        "float32 to keep float32"]  # fmt: skip


def test_a_tensor_that_the_base_keeps_in_float32_stays(tmp_path: Path) -> None:
    path = save_model(tmp_path / "base", "llama")
    state = {name: t.float() if "norm" in name else t for name, t in weights(path).items()}
    save_file(state, path / "model.safetensors", metadata={"format": "pt"})
    base = open_checkpoint(path)
    masters = {name: tensor.float() + 1e-5 for name, tensor in state.items()}
    found = weights(fetch(str(as_safetensors(tmp_path / "agent", base, masters)), base=base))
    assert equal(found, {name: masters[name].to(state[name].dtype) for name in state})


def test_nothing_is_rounded_that_has_the_dtype_of_its_base(tmp_path: Path, base: Checkpoint, agent: Path) -> None:
    assert fetch(str(agent), base=base).path == agent
    narrow = save_model(tmp_path / "narrow", "tied", dtype=torch.float16)
    assert fetch(str(narrow), base=base).path == narrow
