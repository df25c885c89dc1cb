"""Prompts as a model reads them: tokens. transformers is imported by the first call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rammerge.activations.prompts import Prompts
from rammerge.errors import InputError

# A checkpoint's own code is never run. Unset, transformers would ask on a terminal whether to run it.
LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
# The published code takes 64 short texts. Each token is a row of every layer's inputs, on the disk.
MAX_TOKENS = 32_768
# transformers' word for a tokenizer that knows no limit is a number like 1e30.
_NO_LIMIT = 1 << 30


def tokenize(model_dir: Path, prompts: Prompts) -> list[list[int]]:
    """Return the tokens of each prompt.

    Raises:
        InputError: the model has no tokenizer or chat template, or a prompt has no tokens, or too many.
    """
    tokenizer, limit = _tokenizer(model_dir), _limit(model_dir)
    found = list(_tokens(model_dir, tokenizer, prompts))
    for number, tokens in enumerate(found, start=1):
        if not tokens:
            raise InputError(f"{prompts.path}: prompt {number} has no tokens; remove it")
        if len(tokens) > min(limit, tokenizer.model_max_length):
            raise InputError(
                f"{prompts.path}: prompt {number} has {len(tokens):,} tokens, and {model_dir} reads "
                f"{min(limit, tokenizer.model_max_length):,} at most; shorten it"
            )
    if (total := sum(map(len, found))) > MAX_TOKENS:
        raise InputError(f"{prompts.path} has {total:,} tokens; {MAX_TOKENS:,} are the most, so leave prompts out")
    return found


def _tokens(model_dir: Path, tokenizer: Any, prompts: Prompts) -> Iterator[list[int]]:
    for number, prompt in enumerate(prompts.items, start=1):
        try:
            yield _read(tokenizer, prompt.content)
        except Exception as error:  # what templates and tokenizers raise, which share no class
            raise InputError(
                f"{prompts.path}: prompt {number} cannot be read by the tokenizer of {model_dir}: "
                f"{' '.join(str(error).split())}"
            ) from error


def _read(tokenizer: Any, content: str | Sequence[Any]) -> list[int]:
    if isinstance(content, str):
        return list(tokenizer(content).input_ids)
    text = tokenizer.apply_chat_template(list(content), add_generation_prompt=True, tokenize=False)
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def _tokenizer(model_dir: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model_dir, **LOCAL)
    except Exception as error:  # of tokenizers and transformers, which share no class
        raise InputError(
            f"{model_dir}: its tokenizer cannot be loaded by transformers, so it cannot read prompts: "
            f"{' '.join(str(error).split())}"
        ) from error


def _limit(model_dir: Path) -> int:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(model_dir, **LOCAL)
    except Exception as error:  # what a file from elsewhere makes transformers' parsers raise
        raise InputError(f"{model_dir}: transformers cannot read its config.json: {error}") from error
    return getattr(config.get_text_config(), "max_position_embeddings", None) or _NO_LIMIT
