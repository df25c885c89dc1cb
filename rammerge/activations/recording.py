"""Recording: run a model on prompts and keep what flows into its linear layers. transformers is imported when it runs.

Every prompt runs alone and on one thread, and its rows have their place in the files before it runs. So the bytes do
not depend on the number of threads, and no more than one layer's activations are in memory for each of them.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rammerge.activations.activations import Activations, LayerInputs
from rammerge.activations.layers import linear_layers
from rammerge.activations.prompts import Prompts
from rammerge.activations.rows import Rows
from rammerge.activations.tokens import LOCAL, tokenize
from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.checkpoints.forms.classes import model_class, quiet
from rammerge.errors import InputError, RammergeError
from rammerge.system.lazy import torch
from rammerge.system.reading import quote
from rammerge.system.space import require_space
from rammerge.system.threads import single_threaded, work_through

if TYPE_CHECKING:
    from torch import Tensor


def record(
    checkpoint: Checkpoint,
    prompts: Prompts,
    out: Path,
    *,
    device: str = "cpu",
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Activations:
    """Run a model on prompts and write the inputs of its linear layers, in float32, into the directory `out`.

    The head is left out, and so are layers that do not read each token exactly once, such as experts. The model is
    loaded whole, in the dtype in which it is stored. The bytes are the same on one kind of processor.

    Args:
        checkpoint: the model, which transformers loads.
        prompts: what it reads.
        out: a directory, which is made if missing.
        device: cpu, cuda or cuda:N.
        threads: how many prompts run at once on a CPU; default: one for each processor.
        progress: called from threads with the number of prompts that are done and their number.

    Raises:
        InputError: transformers cannot load the model, a prompt does not fit, the disk has too little room, or the
            model's activations are not finite.
        RammergeError: the model does not run.
    """
    tokens = tokenize(checkpoint.path, prompts)
    out.mkdir(parents=True, exist_ok=True)
    layers = _fill(checkpoint, tokens, out, device, threads, progress)
    gc.collect()  # a model is full of reference cycles, and the merge needs its memory
    found = Activations(out, tuple(map(len, tokens)), tuple(each.agent for each in prompts.items), layers)
    found.write()
    return found


def _fill(
    checkpoint: Checkpoint,
    tokens: Sequence[Sequence[int]],
    out: Path,
    device: str,
    threads: int | None,
    progress: Callable[[int, int], None] | None,
) -> dict[str, LayerInputs]:
    """Load the model, run it and write the files."""
    model = _load(checkpoint, device)
    layers = linear_layers(model, checkpoint)
    needed = sum(map(len, tokens)) * sum(layer.width for layer in layers) * 4
    fix = "make room, or use fewer or shorter prompts"
    require_space(out, needed, what="recording activations", where=str(out), fix=fix)
    rows = Rows(out, layers, len(tokens))
    for layer in layers:
        layer.module.register_forward_pre_hook(rows.hook(layer), with_kwargs=True)
    ids = [torch.tensor([each], device=device) for each in tokens]
    _run(model, ids, rows, threads if device == "cpu" else 1, progress)
    return rows.finish()


def _load(checkpoint: Checkpoint, device: str) -> Any:
    kind = model_class(checkpoint.config)
    if kind is None:
        named = quote(checkpoint.config.get("architectures"))
        raise InputError(
            f"{checkpoint.path} cannot run on prompts: transformers has no class for {named}, the architectures in its "
            "config.json; give a base that transformers knows"
        )
    try:
        with quiet():
            model, report = kind.from_pretrained(checkpoint.path, dtype="auto", output_loading_info=True, **LOCAL)
    except Exception as error:  # of safetensors, torch and transformers, which share no class
        raise InputError(
            f"{checkpoint.path} cannot be loaded by transformers: {' '.join(str(error).split())}"
        ) from error
    if absent := sorted(report["missing_keys"]):
        raise InputError(f"{checkpoint.path} cannot run on prompts: it lacks the weights {absent[0]}")
    return model.to(device).eval()


def _run(
    model: Any, ids: Sequence[Tensor], rows: Rows, threads: int | None, progress: Callable[[int, int], None] | None
) -> None:
    starts = list(accumulate((each.shape[1] for each in ids), initial=0))
    done: list[int] = []

    def run(number: int) -> None:
        with torch.inference_mode(), rows.of(starts[number], ids[number].shape[1]):
            try:
                _forward(model, ids[number])
            except RammergeError:
                raise
            except Exception as error:  # a model's code may raise anything
                message = f"the model does not run on prompt {number + 1}: {' '.join(str(error).split())}"
                raise RammergeError(message) from error
        done.append(number)
        if progress:
            progress(len(done), len(ids))

    with single_threaded():
        work_through(range(len(ids)), run, threads or len(os.sched_getaffinity(0)))


def _forward(model: Any, ids: Tensor) -> None:
    # The decoder behind an encoder needs tokens of its own; with labels transformers makes them from these.
    labels = {"labels": ids} if model.config.is_encoder_decoder else {}
    cache = {} if model.config.is_encoder_decoder else {"use_cache": False}
    model(input_ids=ids, **labels, **cache)
