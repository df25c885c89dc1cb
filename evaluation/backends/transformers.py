"""Models that transformers runs in this process: how they are loaded, decode and share the processors.

transformers and torch are imported by the first call.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.backends.classes import local, own_class, text_model
from rammerge.errors import InputError, RammergeError, closest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DTYPES = ("float32", "bfloat16", "float16")

PROMPT, NEW_TOKENS = "1 + 1 =", 8

# The tokens that begin and end a completion. The forced first token is the language of a translator's answer.
_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_bos_token_id")

# The steps of a model up to this size are too short to be shared among threads. The threads would mostly wait for one
# another, and on a busy machine, where one of them is often not running, for milliseconds at each tensor.
_ONE_THREAD_PARAMETERS = 50_000_000

# transformers sets torch's default dtype, which is global to the process, while it builds a model.
_LOADING = threading.Lock()


@dataclass(frozen=True)
class Loaded:
    """A model and its tokenizer, ready to run; `seq2seq` if an encoder reads the prompt."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    seq2seq: bool


def load(model_dir: Path, *, dtype: str, device: str) -> Loaded:
    """Load the model directory in `dtype` ("auto": as it is stored) onto `device`.

    Raises:
        InputError: an unknown dtype, or a directory that transformers cannot load.
    """
    import torch

    if dtype not in (*DTYPES, "auto"):
        raise InputError(f"unknown dtype '{dtype}'{closest(dtype, DTYPES)} for the evaluation: use {', '.join(DTYPES)}")
    preload_transformers()
    text = text_model(model_dir)
    tokenizer = load_tokenizer(model_dir)
    model = _load_weights(text.auto, model_dir, dtype if dtype == "auto" else getattr(torch, dtype), device)
    return Loaded(model, tokenizer, text.seq2seq)


def load_tokenizer(model_dir: Path) -> "PreTrainedTokenizerBase":
    """Return the tokenizer of the model directory; InputError if it has none that transformers can load."""
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(model_dir, **local(model_dir))
    except Exception as error:  # of tokenizers and transformers, which share no class
        raise InputError(
            f"{model_dir}: its tokenizer cannot be loaded by transformers: {' '.join(str(error).split())}"
        ) from error
    return tokenizer


def _load_weights(loader: type[Any], model_dir: Path, dtype: Any, device: str) -> "PreTrainedModel":
    try:
        with _LOADING:
            model, report = loader.from_pretrained(model_dir, dtype=dtype, output_loading_info=True, **local(model_dir))
    except Exception as error:  # of safetensors, torch and transformers, which share no class
        raise InputError(f"{model_dir} cannot be loaded by transformers: {' '.join(str(error).split())}") from error
    if absent := sorted(report["missing_keys"]):
        raise InputError(
            f"{model_dir} cannot be loaded by transformers: it lacks the weights {absent[0]}"
            f"{f' and {len(absent) - 1} more' if len(absent) > 1 else ''}, which would be filled at random"
        )
    loaded: PreTrainedModel = model.to(device).eval()
    return loaded


def drop_decoding_settings(model: "PreTrainedModel") -> None:
    """Forget a checkpoint's own decoding settings, except for the tokens that begin and end a completion.

    A repetition penalty or a temperature would make agents differ by more than their weights.
    """
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig(**{key: getattr(model.generation_config, key, None) for key in _TOKENS})


def check_decoding_settings(model_dir: Path) -> None:
    """Refuse a generation_config.json that transformers cannot read, or with token ids that are none."""
    from transformers import GenerationConfig

    file = model_dir / "generation_config.json"
    if not file.is_file():
        return
    try:
        settings = GenerationConfig.from_pretrained(model_dir, local_files_only=True)
    except Exception as error:  # what odd values make transformers' checks raise
        raise InputError(f"{file} cannot be loaded by transformers: {' '.join(str(error).split())}") from error
    for key in _TOKENS:
        ids = getattr(settings, key, None)
        given = ids if isinstance(ids, list) else [] if ids is None else [ids]
        if not all(type(each) is int and each >= 0 for each in given):
            raise InputError(f"{file}: {key} must be the id of a token, or a list of ids, not {ids!r}; correct it")


def try_out(model_dir: Path, *, device: str) -> tuple[str, bool]:
    """Return how the model in `model_dir` continues a short prompt, and whether its logits are finite.

    The text is empty for a model that transformers does not run on text. Such a model is loaded by its own class, if
    transformers has that, and its weights have to be finite.

    Raises:
        InputError: transformers cannot load the directory.
        RammergeError: the model cannot run.
    """
    import torch

    if not _is_askable(model_dir):
        if (own := own_class(model_dir)) is not None:
            _load_weights(own, model_dir, "auto", "cpu")
        return "", _are_finite(model_dir)
    loaded = load(model_dir, dtype="auto", device=device)
    try:
        prompt = loaded.tokenizer(PROMPT, return_tensors="pt").input_ids.to(device)
        # The decoder behind an encoder needs tokens of its own; with labels transformers makes them from these.
        asked = {"input_ids": prompt} | ({"labels": prompt} if loaded.seq2seq else {})
        with threads_for(loaded.model), torch.inference_mode():
            finite = bool(torch.isfinite(loaded.model(**asked).logits).all())
            tokens = loaded.model.generate(prompt, max_new_tokens=NEW_TOKENS, do_sample=False)
    except Exception as error:  # a model's code may raise anything
        raise RammergeError(f"{model_dir} does not generate: {' '.join(str(error).split())}") from error
    answer = tokens[0] if loaded.seq2seq else tokens[0, prompt.shape[1] :]
    return loaded.tokenizer.decode(answer, skip_special_tokens=True), finite


def _is_askable(model_dir: Path) -> bool:
    try:
        text_model(model_dir)
        load_tokenizer(model_dir)
    except InputError:
        return False
    return True


def _are_finite(model_dir: Path) -> bool:
    import torch
    from safetensors import safe_open

    for file in sorted(model_dir.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  (no mapping)
                tensor = tensors.get_tensor(name)
                if tensor.is_floating_point() and not torch.isfinite(tensor.float()).all():
                    return False
    return True


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


# What transformers imports if it finds it and no model here needs, a third of all imports: scikit-learn for models that
# draft the answers of others, SciPy for the losses of object detection.
_NEEDLESS = ("is_sklearn_available", "is_scipy_available")


@cache
def preload_transformers() -> None:
    """Import what loads models, once a process, without its progress bars and advice; its errors are still logged."""
    import transformers
    from transformers import utils

    with _hidden(utils):
        # Forks that load models would each import what all models share.
        for module in ("transformers.generation.candidate_generator", "transformers.modeling_layers"):
            import_module(module)
    for name in ("AutoModelForCausalLM", "AutoTokenizer"):
        getattr(transformers, name)  # imported when it is first asked for
    utils.logging.set_verbosity_error()
    utils.logging.disable_progress_bar()


@contextmanager
def _hidden(utils: Any) -> Iterator[None]:
    """While the context lasts, have transformers' `utils` say that what is needless is not there."""
    there = {name: getattr(utils, name) for name in _NEEDLESS}
    vars(utils).update(dict.fromkeys(there, lambda: False))
    try:
        yield
    finally:
        vars(utils).update(there)
