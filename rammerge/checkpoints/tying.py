"""Tied input embeddings and output heads: one tensor under two names, recognized by the config and the bytes.

When config.json says `tie_word_embeddings`, transformers reads one tensor for the embedding and the head, but some
trainers store both. Then two vocabulary-sized matrices with equal bytes are one tensor under two names, which is
counted and merged once. If their bytes differ they stay separate, as in transformers (5.x, `tie_weights`).
"""

import re
from collections.abc import Mapping
from typing import Any

from rammerge.checkpoints.compare import same_bytes
from rammerge.checkpoints.headers import TensorInfo

# Where composite models (vision-language, speech, encoder-decoder) keep the configuration of their language model.
_TEXT_CONFIGS = ("text_config", "llm_config", "language_config", "decoder", "thinker_config")
_HEAD = re.compile(r"head|out|predictions|projector|decoder\.weight")
_EMBEDDING = re.compile(r"emb|wte|shared")
_VOCABULARY = re.compile(f"{_HEAD.pattern}|{_EMBEDDING.pattern}")
_TIED = re.compile(r"emb|wte|shared|head\.weight|embed_out|output(_layer)?\.weight|predictions|decoder\.weight")


def text_setting(config: Mapping[str, Any], key: str) -> Any:
    """Return `config[key]`, or the same key in the nested configuration of the language model, or None."""
    if config.get(key) is not None:
        return config[key]
    nested = nested_configs(config).values()
    return next((found for section in nested if (found := text_setting(section, key)) is not None), None)


def nested_configs(config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the nested configurations of the language model in `config`, by name."""
    return {name: config[name] for name in _TEXT_CONFIGS if isinstance(config.get(name), Mapping)}


def is_tied(config: Mapping[str, Any]) -> bool:
    """Return whether `config` says explicitly that embedding and head are one tensor; defaults are not guessed."""
    return text_setting(config, "tie_word_embeddings") is True


def may_be_tied(name: str) -> bool:
    """Return whether the tensor `name` may be one of those that architectures tie: embeddings and output heads."""
    return _TIED.search(name) is not None


def find_tied(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> dict[str, str]:
    """Return alias -> canonical name for tensors that are stored twice although `config` ties them.

    Among vocabulary matrices with equal bytes, the input embedding is the canonical one.
    """
    aliases: dict[str, str] = {}
    if not is_tied(config):
        return aliases
    canonical: list[TensorInfo] = []
    for tensor in sorted(vocabulary_matrices(config, tensors), key=embedding_first):
        twin = next((other for other in canonical if same_bytes(tensor, other)), None)
        if twin is None:
            canonical.append(tensor)
        else:
            aliases[tensor.name] = twin.name
    return aliases


def with_untied_head(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return `config` with untied embeddings, also in the configuration of the language model."""
    nested = {name: with_untied_head(section) for name, section in nested_configs(config).items()}
    return {**config, **nested, "tie_word_embeddings": False}


def vocabulary_matrices(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> list[TensorInfo]:
    """Return the embeddings and heads, which have a typical name and one row for each entry of the vocabulary."""
    rows = text_setting(config, "vocab_size")
    return [
        tensor
        for tensor in tensors.values()
        if len(tensor.shape) == 2 and tensor.shape[0] == rows and _VOCABULARY.search(tensor.name)
    ]


def embedding_first(tensor: TensorInfo) -> tuple[bool, bool, int, str]:
    """Return a sorting key for vocabulary matrices that puts the input embedding first."""
    head, embedding = bool(_HEAD.search(tensor.name)), bool(_EMBEDDING.search(tensor.name))
    return head, not embedding, len(tensor.name), tensor.name
