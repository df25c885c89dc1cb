"""Comparisons of a base and its agents. Each refuses, in one sentence with the fix, what cannot be merged."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from types import MappingProxyType
from typing import Literal

from rammerge.checkpoints.buffers import with_buffers_of
from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.checkpoints.compare import same_bytes, same_tensors
from rammerge.checkpoints.gathering import check_gathered
from rammerge.checkpoints.headers import TensorInfo
from rammerge.checkpoints.heads import keep_heads_apart, without_redundant_heads
from rammerge.checkpoints.tokenizers import compare_tokenizers
from rammerge.checkpoints.tying import is_tied, may_be_tied, text_setting
from rammerge.checkpoints.unchanged import why_unchanged
from rammerge.errors import InputError
from rammerge.numerics.dtypes import DType

Resize = Literal["refuse", "common"]

# Settings that change what the same weights compute. The merged model has the base's.
_COMPUTING = (
    "head_dim",
    "hidden_act",
    "num_attention_heads",
    "num_experts_per_tok",
    "num_key_value_heads",
    "rms_norm_eps",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "sliding_window",
)
_QUANTIZED_NAME = re.compile(r"(^|[._])q?weight(_packed)?$")


def check_mergeable(
    base: Checkpoint, agents: Mapping[str, Checkpoint], resize: Resize
) -> tuple[Checkpoint, dict[str, Checkpoint], list[str]]:
    """Check that every agent can be merged into `base`, and return base and agents as tensors of the same shapes.

    If only an agent stores a redundant copy of a tied head, its view leaves the copy out; it also leaves out buffers
    that models compute. If an agent trained its head separately from the embedding, all views keep the two separate.

    With `resize="common"`, the view of an agent that appended rows to its vocabulary (embedding, head, head bias) has
    only the base's rows: the merged model has the base's vocabulary. With `"refuse"` such an agent is refused.

    Headers, configurations and tokenizers are read. Of the weights, only integer tensors are read, and as much as it
    takes to see that no two checkpoints are equal.

    Returns:
        A view of the base; the agents as views with exactly its names and shapes; what the user should know.

    Raises:
        InputError: one sentence that names the agent, the tensor and the fix.
    """
    _check_not_quantized("the base", base)
    for name, agent in agents.items():
        _check_not_quantized(f"agent {name!r}", agent)
        _check_architecture(name, base, agent)
    warnings = notes_of({name: agent.notes for name, agent in agents.items()})
    shown = {name: without_redundant_heads(base, with_buffers_of(base, agent)) for name, agent in agents.items()}
    base, shown, separated = keep_heads_apart(base, shown)
    warnings += separated
    views: dict[str, Checkpoint] = {}
    for name, agent in shown.items():
        view, dropped = _fit_vocabulary(name, base, agent, resize)
        _check_names(name, base, view)
        _check_shapes(name, base, view)
        warnings += dropped + _check_dtypes(name, base, view) + _compare_settings(name, base, agent)
        warnings += compare_tokenizers(base.path, agent.path, name)
        views[name] = view
    for name, view in views.items():
        _check_integers(name, base, view)
    _check_distinct(base, views)
    return base, views, warnings


def _check_not_quantized(who: str, checkpoint: Checkpoint) -> None:
    fix = "merge the bfloat16, float16 or float32 checkpoint that it was made from"
    settings = text_setting(checkpoint.config, "quantization_config")
    if settings is not None:
        kind = settings.get("quant_method") if isinstance(settings, Mapping) else None
        raise InputError(f"{who} is quantized ({kind or 'quantization_config in its config.json'}); {fix}")
    for tensor in checkpoint.tensors.values():
        packed = not _is_float(tensor) and len(tensor.shape) > 1 and _QUANTIZED_NAME.search(tensor.name)
        if (_is_float(tensor) and tensor.dtype.itemsize == 1) or packed:
            raise InputError(f"{who} is quantized ({tensor.name} is {tensor.dtype}); {fix}")


def _check_architecture(name: str, base: Checkpoint, agent: Checkpoint) -> None:
    for key in ("model_type", "architectures"):
        wanted, found = base.config.get(key), agent.config.get(key)
        if wanted != found and None not in (wanted, found):
            raise InputError(
                f"agent {name!r} has a different architecture: its config.json says {key} {_listed(found)} and the "
                f"base's {_listed(wanted)}; merge agents trained from this base"
            )


def notes_of(notes: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the notes on each agent as warnings."""
    return [f"agent {name!r}: {note}" for name, found in notes.items() for note in found]


def _fit_vocabulary(name: str, base: Checkpoint, agent: Checkpoint, resize: Resize) -> tuple[Checkpoint, list[str]]:
    """Return a view of an agent without its appended vocabulary rows, and a warning about them."""
    rows, agent_rows = (text_setting(checkpoint.config, "vocab_size") for checkpoint in (base, agent))
    grown = [
        tensor
        for tensor in agent.tensors.values()
        if tensor.name in base.tensors and _differs_by_rows(base.tensors[tensor.name], tensor, rows, agent_rows)
    ]
    if not grown:
        return agent, []
    first = f"{grown[0].name} has {agent_rows} rows and the base's {rows}"
    if agent_rows < rows:
        raise InputError(f"agent {name!r} has a smaller vocabulary: {first}; merge agents trained from this base")
    if resize == "refuse":
        raise InputError(
            f"agent {name!r} has a larger vocabulary: {first}; if its rows were appended, merge the common rows with "
            "--resize common (output.resize in a recipe)"
        )
    narrowed = {tensor.name: tensor.head_rows(rows) for tensor in grown}
    view = replace(agent, tensors=MappingProxyType({**agent.tensors, **narrowed}))
    return view, [
        f"agent {name!r} appended {agent_rows - rows} rows to its vocabulary ({', '.join(narrowed)}): they are "
        "dropped, and the merged model needs the base's tokenizer"
    ]


def _differs_by_rows(wanted: TensorInfo, found: TensorInfo, rows: object, agent_rows: object) -> bool:
    if rows == agent_rows or not wanted.shape or not found.shape:
        return False
    return wanted.shape[1:] == found.shape[1:] and (wanted.shape[0], found.shape[0]) == (rows, agent_rows)


def _check_names(name: str, base: Checkpoint, agent: Checkpoint) -> None:
    missing = sorted(base.tensors.keys() - agent.tensors.keys())
    extra = sorted(agent.tensors.keys() - base.tensors.keys())
    if not missing and not extra:
        return
    if is_tied(base.config) != is_tied(agent.config) and all(map(may_be_tied, [*missing, *extra])):
        tied, untied = ("the base", f"agent {name!r}") if is_tied(base.config) else (f"agent {name!r}", "the base")
        raise InputError(
            f"{tied} ties its output head to its embedding and {untied} does not ({(missing or extra)[0]}); "
            "merge agents with tie_word_embeddings as in the base"
        )
    if missing:
        raise InputError(
            f"agent {name!r} lacks {_first(missing)}; save the whole model, or merge agents of the base's architecture"
        )
    raise InputError(
        f"agent {name!r} has {_first(extra)}, which the base lacks; save the agent without them, or merge it into "
        "the base that it was trained from"
    )


def _check_shapes(name: str, base: Checkpoint, agent: Checkpoint) -> None:
    for tensor in agent.tensors.values():
        wanted = base.tensors[tensor.name]
        if 0 not in wanted.shape:
            check_gathered(f"agent {name!r}", tensor.name, tensor.shape)
        if tensor.shape != wanted.shape:
            raise InputError(
                f"agent {name!r} has {tensor.name} of shape {list(tensor.shape)} and the base of "
                f"{list(wanted.shape)}; merge agents trained from this base"
            )


def _check_dtypes(name: str, base: Checkpoint, agent: Checkpoint) -> list[str]:
    pairs: dict[tuple[DType, DType], int] = {}
    for tensor in agent.tensors.values():
        wanted = base.tensors[tensor.name]
        if tensor.dtype != wanted.dtype and not (_is_float(tensor) and _is_float(wanted)):
            raise InputError(
                f"agent {name!r} stores {tensor.name} as {tensor.dtype} and the base as "
                f"{wanted.dtype}; save it in the base's dtype"
            )
        if tensor.dtype != wanted.dtype:
            pairs[tensor.dtype, wanted.dtype] = pairs.get((tensor.dtype, wanted.dtype), 0) + 1
    return [
        f"agent {name!r} stores {count} tensors as {found} and the base as {wanted}: "
        "elements that only rounding changed can count as active"
        for (found, wanted), count in sorted(pairs.items(), key=str)
    ]


def _compare_settings(name: str, base: Checkpoint, agent: Checkpoint) -> list[str]:
    differing = []
    for key in _COMPUTING:
        wanted, found = text_setting(base.config, key), text_setting(agent.config, key)
        if None not in (wanted, found) and wanted != found:
            differing.append(f"{key} {found} instead of {wanted}")
    if not differing:
        return []
    return [f"agent {name!r} was trained with {', '.join(differing)}: the merged model has the base's settings"]


def _check_integers(name: str, base: Checkpoint, agent: Checkpoint) -> None:
    for tensor in agent.tensors.values():
        if not _is_float(tensor) and not same_bytes(tensor, base.tensors[tensor.name]):
            raise InputError(
                f"agent {name!r} differs from the base in {tensor.name}, which is {tensor.dtype} and cannot "
                "be merged; save the agent with the base's tensor"
            )


def _check_distinct(base: Checkpoint, agents: Mapping[str, Checkpoint]) -> None:
    for name, agent in agents.items():
        if same_tensors(base.tensors, agent.tensors):
            raise InputError(
                f"agent {name!r} has the same weights as the base{why_unchanged(agent)}; give the trained checkpoint"
            )
    for (one, agent), (two, other) in combinations(agents.items(), 2):
        if same_tensors(agent.tensors, other.tensors):
            raise InputError(f"agents {one!r} and {two!r} have the same weights; name each agent once")


def _is_float(tensor: TensorInfo) -> bool:
    return tensor.dtype.is_floating_point


def _listed(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _first(names: list[str]) -> str:
    return f"{names[0]} and {len(names) - 1} more tensors" if len(names) > 1 else names[0]
