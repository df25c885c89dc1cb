"""How models speak: the tokens that end a turn, the chat template, special tokens and settings of generation.

The merged model has those of one model. Agents that were trained with different ones answer differently then, or never
stop, although their weights are all there; so every difference is said, with the setting that changes the choice.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.checkpoints.tokenizers import TOKENIZER, token_names
from rammerge.checkpoints.tying import nested_configs, text_setting
from rammerge.errors import InputError, closest
from rammerge.system.reading import quote, read_json_object, read_start

# The ids in a config.json by which generation starts, stops and pads.
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
_SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token", "additional_special_tokens", "extra_special_tokens")
# A chat template beyond this is compared by its beginning.
_MOST_BYTES = 1 << 22
# What a generation_config.json says of itself, and what is compared by its tokens.
_NO_SETTING = frozenset({"transformers_version", "_from_model_config", *TOKEN_IDS})


@dataclass(frozen=True)
class Manners:
    """How a model speaks, each part as text to compare; "" where its files do not say.

    Attributes:
        ending: the tokens that end a turn.
        template: the chat templates.
        special: the special tokens.
        generation: the settings of generation.
    """

    ending: str
    template: str
    special: str
    generation: str


_DIFFERENCES = {
    "ending": "ends its turns with a different token ({found} instead of {used})",
    "template": "has a different chat template",
    "special": "has different special tokens ({found} instead of {used})",
    "generation": "has different settings of generation ({found} instead of {used})",
}


def companions_of(sources: Mapping[str, Checkpoint], chosen: str) -> Checkpoint:
    """Return the model whose tokenizer, chat template and generation config the merge takes.

    Args:
        sources: `base` and the agents by name.
        chosen: `base` or an agent's name.

    Raises:
        InputError: there is no such agent, or its tokenizer has tokens for which the merged model has no rows.
    """
    if chosen not in sources:
        hint = closest(chosen, sources)
        raise InputError(f"tokenizer from '{chosen}': no such agent{hint}; use base or an agent's name")
    if chosen != "base":
        _check_ids(sources["base"], sources[chosen], chosen)
    return sources[chosen]


def compare_companions(sources: Mapping[str, Checkpoint], chosen: str) -> list[str]:
    """Return a sentence for each agent that speaks differently from the model whose files the merge takes.

    Raises:
        InputError: see `companions_of`, which takes the same arguments.
    """
    manners = _manners(companions_of(sources, chosen))
    whose = "the base" if chosen == "base" else f"agent {chosen!r}"
    sentences = []
    for name, agent in sources.items():
        differences = _differences(_manners(agent), manners) if name not in ("base", chosen) else []
        if differences:
            sentences.append(
                f"agent {name!r} {' and '.join(differences)} than {whose}: the merged model takes those of {whose}; "
                f"to take the agent's, set output.tokenizer (or --tokenizer) to {name}"
            )
    return sentences


def with_token_ids(config: Mapping[str, Any], companions: Mapping[str, Any]) -> dict[str, Any]:
    """Return `config` with the token ids of `companions`, so that config.json agrees with the tokenizer beside it."""
    nested = {
        name: with_token_ids(section, companions[name])
        for name, section in nested_configs(config).items()
        if isinstance(companions.get(name), Mapping)
    }
    return {**config, **nested, **{key: companions[key] for key in TOKEN_IDS if key in companions}}


def _differences(found: Manners, used: Manners) -> list[str]:
    differing = []
    for each in fields(Manners):
        own, other = getattr(found, each.name), getattr(used, each.name)
        if own and other and own != other:
            differing.append(_DIFFERENCES[each.name].format(found=_short(own), used=_short(other)))
    return differing


def _short(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:117]}..."


def _check_ids(base: Checkpoint, used: Checkpoint, chosen: str) -> None:
    rows = text_setting(base.config, "vocab_size")
    names = token_names(used.path / TOKENIZER)
    last = max(names, default=-1)
    if isinstance(rows, int) and last >= rows:
        raise InputError(
            f"the tokenizer of agent {chosen!r} has the token {quote(names[last])} with id {last}, and the merged "
            f"model has the base's {rows} rows; set output.tokenizer (or --tokenizer) to base, or give agents without "
            "appended tokens"
        )


def _manners(checkpoint: Checkpoint) -> Manners:
    generation = _optional(checkpoint.path / "generation_config.json")
    tokenizer = _optional(checkpoint.path / "tokenizer_config.json")
    special = {**_optional(checkpoint.path / "special_tokens_map.json"), **tokenizer}
    ids = generation.get("eos_token_id", text_setting(checkpoint.config, "eos_token_id"))
    return Manners(
        ending=_named(ids, checkpoint),
        template=_templates(checkpoint.path, tokenizer),
        special=_listed({key: _plain(special[key]) for key in _SPECIAL if special.get(key)}),
        generation=_listed({key: value for key, value in generation.items() if key not in _NO_SETTING}),
    )


def _named(ids: Any, checkpoint: Checkpoint) -> str:
    """Return the tokens of `ids`, one id or several, as the tokenizer calls them."""
    found = ids if isinstance(ids, list) else [ids]
    numbers = sorted({each for each in found if type(each) is int})
    names = token_names(checkpoint.path / TOKENIZER) if numbers else {}
    return ", ".join(f"{quote(names[each])} (id {each})" if each in names else f"id {each}" for each in numbers)


def _templates(path: Path, tokenizer: Mapping[str, Any]) -> str:
    """Return the text of the chat templates, from wherever releases of transformers keep them."""
    files = [path / "chat_template.jinja", *sorted(path.glob("additional_chat_templates/*.jinja"))]
    texts = [_read_text(file) for file in files if file.is_file()]
    if texts:
        return "\n".join(texts)
    template = tokenizer.get("chat_template") or _optional(path / "chat_template.json").get("chat_template")
    return template if isinstance(template, str) else _text(template) if template else ""


def _plain(token: Any) -> Any:
    if isinstance(token, Mapping):
        return token.get("content", token)
    return [_plain(each) for each in token] if isinstance(token, list) else token


def _listed(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_text(value)}" for key, value in sorted(settings.items()))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _read_text(file: Path) -> str:
    return read_start(file, _MOST_BYTES).decode("utf-8", "replace")


def _optional(file: Path) -> dict[str, Any]:
    return read_json_object(file) if file.is_file() else {}
