"""Forms that cannot be read: how each is recognized, and the tool that converts it into a model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rammerge.checkpoints.forms.folders import subdirectories
from rammerge.checkpoints.stored import is_leftover, missing_shards
from rammerge.errors import InputError
from rammerge.system.reading import quote

_MOST_LISTED = 6


@dataclass(frozen=True)
class Foreign:
    """A form that is recognized but cannot be read.

    Attributes:
        name: the name of the form, as the second half of "it contains ...".
        files: a pattern of file names. One of them must exist.
        fix: what the user can do.
        beside: a pattern of file names of which one must also exist, "" if `files` is enough.
        without: a pattern of file names of which none may exist, "" if `files` is enough.
    """

    name: str
    files: str
    fix: str
    beside: str = ""
    without: str = ""

    def among(self, names: Sequence[str]) -> bool:
        """Return whether a directory with entries `names` contains this form."""
        return (
            _any(self.files, names)
            and (not self.beside or _any(self.beside, names))
            and (not self.without or not _any(self.without, names))
        )


FOREIGN: Sequence[Foreign] = (
    Foreign(
        "a DeepSpeed ZeRO checkpoint",
        r"zero_to_fp32\.py|.*zero_pp_rank_\d+_mp_rank_\d+_(?:optim|model)_states\.pt|mp_rank_\d+_model_states\.pt"
        r"|layer_\d+-model_\d+-model_states\.pt|zero_checkpoint.*|universal_checkpoint_info.*",
        "convert it with `python zero_to_fp32.py . OUT`, run in the directory of that script, and give OUT",
    ),
    Foreign(
        "a Megatron distributed checkpoint",
        r".*\.distcp|\.metadata|common\.pt",
        "export it with the trainer's tool: `python -m verl.model_merger merge --backend megatron --local_dir ACTOR "
        "--target_dir OUT`, NeMo-RL's convert_megatron_to_hf.py, or Megatron-Bridge's export_ckpt",
        beside=r"common\.pt|metadata\.json",
    ),
    Foreign(
        "a Megatron-LM checkpoint",
        r"model_optim_rng\.pt|distrib_optim\.pt|model_rng\.pt",
        "export it to Hugging Face's format with the trainer's tool, such as Megatron-Bridge's export_ckpt",
    ),
    Foreign(
        "shards of torch.distributed.checkpoint without their .metadata",
        r".*\.distcp",
        "the save was not finished (killed, or still running in the background); give an earlier step",
        without=r"\.metadata",
    ),
    Foreign(
        "FSDP's flat parameters of each rank (LOCAL_STATE_DICT)",
        r"pytorch_model_fsdp(?:_\d+)?_rank\d+\.bin",
        "save with fsdp_state_dict_type SHARDED_STATE_DICT or FULL_STATE_DICT",
    ),
    Foreign(
        "an adapter's weights without its adapter_config.json",
        r"adapter_model\.(?:safetensors|bin)",
        "copy the adapter_config.json that was saved with them",
        without=r"adapter_config\.json",
    ),
    Foreign(
        "an adapter_config.json without the adapter's weights",
        r"adapter_config\.json",
        "copy adapter_model.safetensors beside it, or save the adapter with save_pretrained",
        without=r"adapter_model\.(?:safetensors|bin)",
    ),
    Foreign(
        "the beginning of files that were not completely written or downloaded",
        r".*\.(?:tmp|incomplete|partial|part|crdownload|aria2|lock)|tmp-.*|\.tmp.*",
        "wait until it is complete, or copy or download it again",
        without=r".*\.(?:gguf|onnx|h5)",
    ),
    Foreign("GGUF", r".*\.ggu?f|.*\.ggml", "give the safetensors that it was made from"),
    Foreign(
        "weights in Meta's format",
        r"consolidated\.\d+\.pth|params\.json|meta_model_\d+\.pt",
        "convert them with transformers' convert_llama_weights_to_hf.py",
        beside=r".*\.pth?",
    ),
    Foreign(
        "weights of TensorFlow or Flax",
        r"tf_model.*\.h5|flax_model.*\.msgpack|.*\.ckpt\.index|saved_model\.pb",
        "load them with from_tf or from_flax in transformers 4 and save them with save_pretrained",
    ),
    Foreign("an ONNX model", r".*\.onnx", "give the model that it was exported from"),
    Foreign("an OpenVINO model", r"openvino_.*\.xml", "give the model that it was exported from"),
    Foreign(
        "an Orbax checkpoint",
        r"_CHECKPOINT_METADATA|_METADATA|manifest\.ocdbt|ocdbt\..*",
        "export it to safetensors with the trainer's tool",
    ),
    Foreign("a NeMo archive", r".*\.nemo", "export it with NeMo's convert_nemo_to_hf or Megatron-Bridge"),
    Foreign("MLX's arrays", r".*\.npz", "convert them with mlx_lm.fuse --de-quantize, which writes safetensors"),
    Foreign(
        "torchtune's own format",
        r"torchtune_model_\d+\.pt|torchtune_config\.yaml|recipe_state\.pt|adapter_\d+\.pt",
        "save with torchtune's FullModelHFCheckpointer, which writes Hugging Face's format",
    ),
)


def find_foreign(names: Sequence[str]) -> Foreign | None:
    """Return the form that a directory with entries `names` contains, if it is one that cannot be read."""
    return next((foreign for foreign in FOREIGN if foreign.among(names)), None)


def refuse(directory: Path) -> InputError:
    """Return the error for a `directory` without readable weights: what it contains, and what to do."""
    for path, names in subdirectories(directory):
        if foreign := find_foreign(names):
            where = directory if path == directory else f"{directory} ({path.relative_to(directory)})"
            return InputError(f"{where} contains {foreign.name}, which cannot be read; {foreign.fix}")
        if missing := missing_shards(names):
            return InputError(f"{path} has {missing}; finish the download or the copy")
    names = next((names for _, names in subdirectories(directory)), [])
    if "config.json" in names:
        return InputError(f"{directory} has a config.json and no weights; save the model with save_pretrained")
    weights = [name for name in names if re.fullmatch(r".*\.(?:safetensors|bin|pt|pth|pkl)", name)]
    if weights and all(is_leftover(name) for name in weights):
        return InputError(
            f"{directory} contains the state of a trainer ({', '.join(weights[:_MOST_LISTED])}) and no model; give the "
            "directory of the model's weights"
        )
    listed = ", ".join(quote(name)[1:-1] for name in names[:_MOST_LISTED]) or "nothing"
    more = ", ..." if len(names) > _MOST_LISTED else ""
    return InputError(
        f"{directory} has no config.json and no weights in a known form, so it is not a checkpoint (it contains "
        f"{listed}{more}); give a directory of save_pretrained, of an adapter, or a trainer's checkpoint"
    )


def _any(pattern: str, names: Sequence[str]) -> bool:
    return any(re.fullmatch(pattern, name) for name in names)
