"""Contract: a form that cannot be read is named, with the tool that makes a model of it.

There is one directory for each form that rammerge.checkpoints.forms.foreign knows, as its trainer leaves it.
"""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.checkpoints.fetch import fetch
from rammerge.checkpoints.forms.foreign import FOREIGN
from rammerge.errors import InputError
from tests.fixtures.states import refused

# what is said -> the files that lie there
DIRECTORIES: dict[str, list[str]] = {
    "a DeepSpeed ZeRO checkpoint": [
        "zero_to_fp32.py", "latest", "global_step9/zero_pp_rank_0_mp_rank_00_model_states.pt",
        "global_step9/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt",
    ],
    "a Megatron distributed checkpoint": ["__0_0.distcp", ".metadata", "common.pt", "metadata.json"],
    "a Megatron-LM checkpoint": ["latest_checkpointed_iteration.txt", "iter_0000009/mp_rank_00/model_optim_rng.pt"],
    "shards of torch.distributed.checkpoint without their .metadata": ["__0_0.distcp", "__1_0.distcp", ".metadata.tmp"],
    "FSDP's flat parameters of each rank (LOCAL_STATE_DICT)": ["pytorch_model_fsdp_rank0.bin"],
    "an adapter's weights without its adapter_config.json": ["adapter_model.safetensors"],
    "an adapter_config.json without the adapter's weights": ["adapter_config.json", "README.md"],
    "the beginning of files that were not completely written or downloaded": [
        "config.json", "model-00001-of-00002.safetensors.incomplete",
    ],
    "GGUF": ["model-Q4_K_M.gguf"],
    "weights in Meta's format": ["consolidated.00.pth", "params.json", "tokenizer.model"],
    "weights of TensorFlow or Flax": ["config.json", "tf_model.h5"],
    "an ONNX model": ["config.json", "model.onnx"],
    "an OpenVINO model": ["openvino_model.xml"],
    "an Orbax checkpoint": ["_CHECKPOINT_METADATA", "d/0"],
    "a NeMo archive": ["model.nemo"],
    "MLX's arrays": ["config.json", "weights.00.npz"],
    "torchtune's own format": ["torchtune_model_00000.pt", "torchtune_config.yaml"],
}  # fmt: skip
# More directories of the same forms.
ALSO: list[tuple[str, list[str]]] = [
    ("a DeepSpeed ZeRO checkpoint", ["global_step9/mp_rank_00_model_states.pt"]),
    ("a DeepSpeed ZeRO checkpoint", ["checkpoint-9/zero_to_fp32.py", "checkpoint-9/global_step9/latest"]),
    ("a Megatron distributed checkpoint", ["global_step_3/actor/dist_ckpt/common.pt"]),
    ("a Megatron distributed checkpoint", ["step_3/policy/weights/iter_0000000/metadata.json",
                                           "step_3/policy/weights/iter_0000000/__0_0.distcp"]),
    ("shards of torch.distributed.checkpoint without their .metadata",
     ["checkpoint-9/pytorch_model_fsdp_0/__0_0.distcp"]),
    ("FSDP's flat parameters of each rank (LOCAL_STATE_DICT)", ["checkpoint-9/pytorch_model_fsdp_1_rank3.bin"]),
    ("weights of TensorFlow or Flax", ["flax_model-00001-of-00002.msgpack"]),
    ("the beginning of files that were not completely written or downloaded",
     ["tmp-checkpoint-9/model.safetensors.tmp"]),
]  # fmt: skip


def lay_out(directory: Path, names: list[str]) -> Path:
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        content = '{"sharded_backend": "torch_dist"}' if name.endswith("metadata.json") else "{}"
        (directory / name).write_text(content)
    return directory


def test_every_form_that_is_named_is_tried() -> None:
    assert {foreign.name for foreign in FOREIGN} == DIRECTORIES.keys()


@pytest.mark.parametrize(("form", "names"), [*DIRECTORIES.items(), *ALSO], ids=str)
def test_a_form_is_named_with_the_way_out(tmp_path: Path, base: Checkpoint, form: str, names: list[str]) -> None:
    (foreign,) = (foreign for foreign in FOREIGN if foreign.name == form)
    source = lay_out(tmp_path / "source", names)
    for known in (base, None):
        with pytest.raises(InputError, match="contains ") as refusal:
            fetch(str(source), base=known)
        assert f" contains {foreign.name}, which cannot be read; {foreign.fix}" in str(refusal.value)


def test_a_model_beside_a_form_that_is_not_read_is_read(agent: Path, base: Checkpoint) -> None:
    lay_out(agent, ["zero_to_fp32.py", "model.onnx", "tf_model.h5", "global_step9/mp_rank_00_model_states.pt"])
    assert fetch(str(agent), base=base).path == agent


def test_other_causes_have_sentences_of_their_own(tmp_path: Path, base: Checkpoint) -> None:
    refused(
        lay_out(tmp_path / "config", ["config.json"]), "has a config.json and no weights; save the model", base=base
    )
    refused(
        lay_out(tmp_path / "state", ["optimizer.pt", "rng_state.pth"]), "contains the state of a trainer", base=base
    )
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", r"no config\.json and no weights in a known form.*\(it contains nothing\)", base=base)
    refused(lay_out(tmp_path / "notes", ["a.txt", "b.txt"]), r"it contains a\.txt, b\.txt", base=base)
    shards = tmp_path / "shards"
    shards.mkdir()
    save_file({"a": torch.ones(1)}, shards / "model-00002-of-00003.safetensors")
    refused(shards, "has 1 of the 3 shards that model-00002-of-00003.safetensors is one of", base=base)


def test_weights_without_a_configuration_borrow_the_base_s(agent: Path, base: Checkpoint, tmp_path: Path) -> None:
    (agent / "config.json").unlink()
    found = fetch(str(agent), base=base)
    assert found.config == base.config
    assert found.tensors.keys() == base.tensors.keys()
    refused(agent, r"has weights \(safetensors\) and no config\.json; copy it there from the base")
    pickle = shutil.copytree(agent, tmp_path / "pickle")
    (pickle / "model.safetensors").unlink()
    torch.save({"a": torch.ones(1)}, pickle / "pytorch_model.bin")
    refused(pickle, r"has weights \(pickled weights\) and no config\.json; copy it there from the base")


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_pointers_of_git_lfs_are_named(agent: Path, base: Checkpoint, name: str) -> None:
    (agent / "model.safetensors").unlink()
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
    (agent / name).write_text(pointer)
    refused(agent, rf"{name} is a Git LFS pointer to the weights; fetch them with `git lfs pull`", base=base)


@pytest.mark.parametrize("form", ["safetensors", "pickle"])
def test_weights_that_were_not_gathered_are_named(agent: Path, base: Checkpoint, form: str) -> None:
    """What transformers saves of a model under ZeRO-3 whose shards nobody gathered."""
    empty = {name: torch.ones(0, dtype=torch.bfloat16) for name in base.tensors}
    (agent / "model.safetensors").unlink()
    if form == "pickle":
        torch.save(empty, agent / "pytorch_model.bin")
        refused(
            agent, r"of shape \[0\]: it was saved without gathering the shards of ZeRO-3; run the zero_to", base=base
        )
    else:
        save_file(empty, agent / "model.safetensors")
        from rammerge.checkpoints.family import Family

        with pytest.raises(Exception, match=r"of shape \[0\]: it was saved without gathering the shards of ZeRO-3"):
            Family.open(base, {"agent": fetch(str(agent), base=base)})
