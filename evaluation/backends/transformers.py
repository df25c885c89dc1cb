"""Models that transformers runs in this process: how they are loaded, decode and share the processors.

transformers and torch are imported by the first call.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from rammerge.errors import InputError, RammergeError, closest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DTYPES = ("float32", "bfloat16", "float16")

PROMPT, NEW_TOKENS = "1 + 1 =", 8

# A step of a model up to this size is too short to be worth handing parts of it to other threads. They would mostly
# wait for each other, and on a busy machine, where one of them is often not running, for milliseconds at each tensor.
_ONE_THREAD_PARAMETERS = 50_000_000

# transformers sets torch's default dtype, which is global to the process, while it builds a model.
_LOADING = threading.Lock()


@dataclass(frozen=True)
class Loaded:
    """A model and its tokenizer, ready to run."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"


def load(model_dir: Path, *, dtype: str, device: str) -> Loaded:
    """Load the model directory in `dtype` ("auto": as it is stored) onto `device`.

    Raises:
        InputError: an unknown dtype, or a directory that transformers cannot load.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if dtype not in (*DTYPES, "auto"):
        raise InputError(f"unknown dtype '{dtype}'{closest(dtype, DTYPES)} for the evaluation: use {', '.join(DTYPES)}")
    if not (model_dir / "config.json").is_file():
        raise InputError(f"{model_dir} is not a model directory: it has no config.json")
    preload_transformers()
    settled = dtype if dtype == "auto" else getattr(torch, dtype)
    # Unset, trust_remote_code would make transformers ask on a terminal whether to run the model's own code.
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        with _LOADING:
            tokenizer = AutoTokenizer.from_pretrained(model_dir, **local)
            model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=settled, **local).to(device)
    except Exception as error:  # of safetensors, tokenizers, torch and transformers, which share no class
        raise InputError(f"{model_dir} cannot be loaded by transformers: {' '.join(str(error).split())}") from error
    return Loaded(model.eval(), tokenizer)


def drop_decoding_settings(model: "PreTrainedModel") -> None:
    """Forget a checkpoint's own decoding settings, except for the tokens that end a completion.

    A repetition penalty or a temperature would make agents differ by more than their weights.
    """
    from transformers import GenerationConfig

    own = model.generation_config
    model.generation_config = GenerationConfig(
        bos_token_id=own.bos_token_id, eos_token_id=own.eos_token_id, pad_token_id=own.pad_token_id
    )


def try_out(model_dir: Path, *, device: str) -> tuple[str, bool]:
    """Return what the model in `model_dir` makes of a short prompt, and whether its logits are finite.

    Raises:
        InputError: transformers cannot load the directory.
        RammergeError: the model cannot run.
    """
    import torch

    loaded = load(model_dir, dtype="auto", device=device)
    try:
        prompt = loaded.tokenizer(PROMPT, return_tensors="pt").input_ids.to(device)
        with threads_for(loaded.model), torch.inference_mode():
            finite = bool(torch.isfinite(loaded.model(input_ids=prompt).logits).all())
            tokens = loaded.model.generate(prompt, max_new_tokens=NEW_TOKENS, do_sample=False)
    except Exception as error:  # a model's code may raise anything
        raise RammergeError(f"{model_dir} does not generate: {' '.join(str(error).split())}") from error
    return loaded.tokenizer.decode(tokens[0, prompt.shape[1] :], skip_special_tokens=True), finite


def is_small(parameters: int) -> bool:
    """Tell whether a model with this number of parameters runs best with one thread, beside others like it."""
    return parameters <= _ONE_THREAD_PARAMETERS


@contextmanager
def threads_for(model: "PreTrainedModel") -> Iterator[None]:
    """Give torch one thread while a small model runs, and leave a large one all that this process has."""
    import torch

    before = torch.get_num_threads()
    if is_small(model.num_parameters()):
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@cache
def preload_transformers() -> None:
    """Import what loads models, once a process, without its progress bars and advice; its errors are still logged."""
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401  (made when they are first asked for)
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
