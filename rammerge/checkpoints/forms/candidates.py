"""Finding the weights in a directory, in every form that can be read, in transformers' order of preference."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rammerge.checkpoints.forms import distributed, rank_shards, verl
from rammerge.checkpoints.forms.adapter_files import CONFIG, PICKLED_ADAPTER, adapter_files, read_adapter
from rammerge.checkpoints.forms.form import Form
from rammerge.checkpoints.forms.pickled import load_state_dict
from rammerge.checkpoints.forms.tensors import LazyTensor, constant, stored
from rammerge.checkpoints.stored import ADAPTER, StoredSet, complete_sets, find_sets, is_leftover
from rammerge.errors import InputError
from rammerge.system.reading import list_directory, quote, read_json_object

PICKLED = "pytorch_model.bin"
PICKLED_INDEX = "pytorch_model.bin.index.json"
# accelerate's FULL_STATE_DICT of FSDP.
_FSDP = re.compile(r"pytorch_model_fsdp(?:_\d+)?\.bin")
# Whole models that torchtune pickled in shards with Hugging Face's names.
_TORCHTUNE = re.compile(r"hf_model_\d{4}_\d+\.pt")
# Files of forms that cannot be read (rammerge.checkpoints.forms.foreign).
_NOT_READ = re.compile(
    r".*(?:rank_?\d+|_states|zero_pp_rank.*)\.(?:bin|pt|pth)|consolidated\..*|(?:meta|torchtune)_model_\d+\.pt"
    r"|common\.pt|model_optim_rng\.pt|distrib_optim\.pt|adapter_\d+\.pt|data\.pt"
)
_VERL_MERGER = "export it with `python -m verl.model_merger merge --backend fsdp --local_dir {} --target_dir OUT`"
_TO_TORCH = "load it in the trainer and export the whole model with save_pretrained"


def find_forms(directory: Path) -> list[Form]:
    """Return the weights in `directory` in the forms that can be read, the most usual form first.

    Raises:
        InputError: an index contradicts the files beside it, or files of a form are missing.
    """
    names = [entry.name for entry in list_directory(directory)]
    actor = verl.find_actor(directory, names)
    if actor is not None:
        return _verl(actor)
    return [
        *_safetensors(directory, names),
        *_adapter(directory, names),
        *_pickled(directory, names),
        *_distributed(directory),
    ]


def _safetensors(directory: Path, names: Sequence[str]) -> list[Form]:
    ranks = [directory / name for name in names if rank_shards.NAME.fullmatch(name)]
    sets = find_sets(directory, [name for name in names if not rank_shards.NAME.fullmatch(name)])
    forms = [_plain(found, [directory], doubtful=not found.usual) for found in sets]
    if ranks:
        read = partial(rank_shards.read_rank_shards, ranks)
        forms.append(Form("safetensors of each rank", directory, ranks, read, [directory, directory.parent]))
    return forms


def _plain(found: StoredSet, places: Sequence[Path], *, doubtful: bool = False) -> Form:
    def read() -> dict[str, LazyTensor]:
        return {name: stored(info) for name, info in found.read().items()}

    return Form("safetensors", found.directory, found.paths, read, places, plain=found, doubtful=doubtful)


def _adapter(directory: Path, names: Sequence[str]) -> list[Form]:
    if CONFIG not in names or not {ADAPTER, PICKLED_ADAPTER} & set(names):
        return []
    files = adapter_files(directory)
    return [Form("PEFT LoRA adapter", directory, files, lambda: read_adapter(files[1]), [directory], adapter=True)]


def _pickled(directory: Path, names: Sequence[str]) -> list[Form]:
    sets: list[list[str]] = []
    if PICKLED in names:
        sets.append([PICKLED])
    if PICKLED_INDEX in names:
        sets.append([PICKLED_INDEX, *_pickled_shards(directory, names)])
    known = {name for found in sets for name in found} | {PICKLED_ADAPTER}
    torchtune = [name for name in names if _TORCHTUNE.fullmatch(name)]
    others = [
        name
        for name in names
        if name.endswith((".bin", ".pt", ".pth"))
        and not (name in known or name in torchtune or is_leftover(name) or _NOT_READ.fullmatch(name))
    ]
    sets += [torchtune] if torchtune else []
    usual = [_pickles(directory, found) for found in sets]
    doubtful: list[Form] = []
    for found in complete_sets(others):
        if len(found) > 1 or _FSDP.fullmatch(found[0]):
            usual.append(_pickles(directory, found))
        else:
            doubtful.append(_pickles(directory, found, doubtful=True))
    return usual + doubtful


def _pickles(directory: Path, names: Sequence[str], *, doubtful: bool = False) -> Form:
    files = [directory / name for name in names]
    places = [directory, directory.parent]
    return Form("pickled weights", directory, files, partial(_read_pickled, files), places, doubtful=doubtful)


def _pickled_shards(directory: Path, names: Sequence[str]) -> list[str]:
    weight_map = read_json_object(directory / PICKLED_INDEX, unique_keys=True).get("weight_map")
    shards = sorted(set(map(str, weight_map.values()))) if isinstance(weight_map, dict) else []
    for shard in shards:
        if "/" in shard or not shard.endswith(".bin") or shard not in names:
            raise InputError(
                f"{directory / PICKLED_INDEX} names the shard {quote(shard)}, which is not a file beside it; "
                "finish the download or the copy"
            )
    return shards


def _read_pickled(files: Sequence[Path]) -> dict[str, LazyTensor]:
    tensors: dict[str, LazyTensor] = {}
    for file in files:
        if file.name == PICKLED_INDEX:
            continue
        for name, tensor in load_state_dict(file).items():
            if name in tensors:
                raise InputError(f"{file} stores {quote(name)} a second time; remove the stale shard")
            tensors[name] = constant(tensor)
    if not tensors:
        raise InputError(f"{files[0]} stores no tensors; save the model again")
    return tensors


def _verl(actor: Path) -> list[Form]:
    """Return the weights that verl saved: an export of the whole model, or the shards of the ranks.

    The export is made from the shards of the same step, so it is preferred if it exists.
    """
    export, lora = actor / "huggingface", actor / "lora_adapter"
    if export.is_dir() and (sets := find_sets(export, [entry.name for entry in list_directory(export)])):
        return [_plain(sets[0], [export])]
    if lora.is_dir() and (forms := _adapter(lora, [entry.name for entry in list_directory(lora)])):
        return forms
    files = verl.rank_files(actor)
    # verl's own exporter writes bfloat16. With a known base, an agent is exported in the base's dtype.
    return [
        Form(
            "verl FSDP shards",
            actor,
            files,
            lambda: verl.read_ranks(files),
            [export, actor],
            masters="bfloat16",
            export=_VERL_MERGER.format(actor),
        )
    ]


def _distributed(directory: Path) -> list[Form]:
    forms = []
    for place in (directory, directory / distributed.IN_TRAINER):
        if (place / distributed.METADATA).exists() and not distributed.is_megatron(place):
            files = distributed.distributed_files(place)
            read = partial(distributed.read_distributed, place)
            places = [place, place.parent / "huggingface", place.parent]
            forms.append(Form("torch.distributed.checkpoint", place, files, read, places, export=_TO_TORCH))
    return forms
