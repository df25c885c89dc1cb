"""How many prompts of a suite a model is asked at a time: as many as fit into memory.

On a processor that follows from the model's configuration and the machine's memory, so it is the same in every run. On
a GPU batches are tried out: they grow until one does not fit, or shrink until one does.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evaluation.backends.transformers import is_small
from evaluation.runners.rehearsal import requests_of
from evaluation.runners.tasks import build_tasks, task_manager
from evaluation.suites import SPLITS, Suite
from rammerge.system.memory import total_memory

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

# Beyond these a batch gains nothing.
_MOST_ON_CPU, _MOST_ON_GPU = 128, 512
# Shares of a GPU's free memory, and of a machine's memory, which also caches the files of all models.
_SHARE_ON_GPU, _SHARE_ON_CPU = 0.9, 0.25
_LONGEST = 8  # texts that are tokenized to find the one with most tokens


@dataclass(frozen=True)
class Widest:
    """The largest row that a suite makes a model read.

    Attributes:
        tokens: of the prompt and the answer.
        scored: whether the probabilities of all tokens are looked at.
    """

    tokens: int
    scored: bool


def choose_batch(lm: "HFLM", suite: Suite, limit: int | None) -> int:
    """Return how many prompts of both splits of a suite the model in `lm` is asked at a time: a power of two."""
    widest = find_widest(lm, suite, limit)
    per_row = row_bytes(lm.config, widest, lm.model.dtype.itemsize, lm.vocab_size)
    if lm.device.type != "cuda":
        processes = min(8, len(os.sched_getaffinity(0))) if is_small(lm.model.num_parameters()) else 1
        return power_of_two(_SHARE_ON_CPU * total_memory() / processes / per_row, _MOST_ON_CPU)
    import torch

    free = _SHARE_ON_GPU * torch.cuda.mem_get_info(lm.device)[0]
    start = power_of_two(free / per_row, _MOST_ON_GPU)
    return largest_that_fits(lambda rows: _fits(lm, rows, widest), start, _MOST_ON_GPU)


def find_widest(lm: "HFLM", suite: Suite, limit: int | None) -> Widest:
    """Return the largest row of a suite. In an environment a conversation may fill the model's context."""
    requests = [request for part in _requests(lm, suite, limit) for request in part]
    scored = any(request.request_type != "generate_until" for request in requests)
    if suite.environment is not None or any(r.request_type == "loglikelihood_rolling" for r in requests):
        return Widest(lm.max_length, scored)
    texts = sorted(((request.args[0], _answer(lm, request)) for request in requests), key=lambda t: -len(t[0]))
    longest = max(len(lm.tok_encode(prompt)) for prompt, _ in texts[:_LONGEST])
    return Widest(min(lm.max_length, longest + max(answer for _, answer in texts)), scored)


def row_bytes(config: Any, widest: Widest, element: int, vocabulary: int) -> int:
    """Return about how many bytes one row of a batch takes: its cache, what one layer makes of it, and its logits.

    Args:
        config: transformers' configuration of the model.
        widest: the row.
        element: bytes of a number in the model's dtype.
        vocabulary: tokens that the model knows.
    """
    text = config.get_text_config()
    hidden = text.hidden_size
    heads = text.num_attention_heads
    cached = 2 * text.num_hidden_layers * hidden * (getattr(text, "num_key_value_heads", None) or heads) // heads
    layer = 6 * hidden + 3 * (getattr(text, "intermediate_size", None) or 4 * hidden)
    scores = 0 if getattr(config, "_attn_implementation", None) == "sdpa" else 2 * heads * widest.tokens
    # Logits and their logarithms, in float32.
    logits = 8 * vocabulary * (widest.tokens if widest.scored else 1)
    return int(widest.tokens * element * (cached + layer + scores) + logits)


def power_of_two(rows: float, most: int) -> int:
    """Return the largest power of two that is at most `rows` and `most`, and at least 1."""
    return 1 << max(0, min(int(rows), most).bit_length() - 1)


def largest_that_fits(fits: Callable[[int], bool], start: int, most: int) -> int:
    """Return the largest batch that `fits`, among `start` and what doubling and halving make of it; at least 1."""
    rows = start
    while rows > 1 and not fits(rows):
        rows //= 2
    while rows >= start and rows < most and fits(2 * rows):
        rows *= 2
    return rows


def _requests(lm: "HFLM", suite: Suite, limit: int | None) -> "Iterator[list[Instance]]":
    manager = task_manager(include_library=suite.uses_library)
    for split in SPLITS:
        for task in build_tasks(manager, suite, split).values():
            yield requests_of(suite, task, lm, limit)


def _answer(lm: "HFLM", request: "Instance") -> int:
    """Return the number of tokens of the longest answer to a request."""
    from lm_eval.models.utils import normalize_gen_kwargs

    if request.request_type == "generate_until":
        return int(normalize_gen_kwargs(request.args[1], lm.max_gen_toks)["max_gen_toks"])
    return len(lm.tok_encode(request.args[1], add_special_tokens=False))


def _fits(lm: "HFLM", rows: int, widest: Widest) -> bool:
    """Tell whether the GPU has the memory for a batch, by asking one."""
    import torch

    torch.cuda.reset_peak_memory_stats(lm.device)
    try:
        ask_batch(lm, rows, widest)
    except torch.OutOfMemoryError:
        return False
    finally:
        peak, total = torch.cuda.max_memory_reserved(lm.device), torch.cuda.mem_get_info(lm.device)[1]
        torch.cuda.empty_cache()
    return peak <= _SHARE_ON_GPU * total


def ask_batch(lm: "HFLM", rows: int, widest: Widest) -> None:
    """Have the model read a batch of the widest rows, and answer or score it, as lm-eval would."""
    import torch

    tokens = torch.ones((rows, max(1, widest.tokens - 1)), dtype=torch.long, device=lm.device)
    mask = torch.ones_like(tokens)
    with torch.inference_mode():
        if widest.scored:
            extra = {"attn_mask": mask, "labels": tokens} if lm.backend == "seq2seq" else {}
            torch.log_softmax(lm._model_call(tokens, **extra), dim=-1)
        else:
            longest = tokens.shape[1] + 1
            lm._model_generate(context=tokens, attention_mask=mask, stop=[], max_length=longest, do_sample=False)
