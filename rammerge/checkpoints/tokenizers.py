"""Compare the vocabularies of two checkpoints, as their tokenizer.json files state them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rammerge.checkpoints.digest import digest_file
from rammerge.errors import InputError
from rammerge.system.reading import quote, read_json_object

TOKENIZER = "tokenizer.json"


def compare_tokenizers(base: Path, agent: Path, agent_name: str) -> list[str]:
    """Return warnings about tokens that the agent renamed or added; [] if one of them has no tokenizer.json.

    RL recipes rename and add special tokens, so that is allowed. A renamed ordinary token is refused, because the merge
    would average the embeddings of different words.

    Raises:
        InputError: an ordinary token's id means a different token in the agent.
    """
    files = base / TOKENIZER, agent / TOKENIZER
    if not all(file.is_file() for file in files) or digest_file(files[0]) == digest_file(files[1]):
        return []
    ordinary, special = _tokens(read_json_object(files[0]))
    agent_ordinary, agent_special = _tokens(read_json_object(files[1]))
    found = agent_ordinary | agent_special
    for token_id, token in ordinary.items():
        if token_id not in special and found.get(token_id) != token:
            raise InputError(
                f"agent {agent_name!r} has a different vocabulary: its tokenizer.json gives id {token_id} to "
                f"{quote(found.get(token_id))} and the base's to {quote(token)}; merge agents trained from this base"
            )
    known = ordinary | special
    renamed = sorted(i for i, token in special.items() if i in found and found[i] != token)
    added = sorted(found.keys() - known.keys())
    warnings = []
    if renamed:
        first = f"{quote(known[renamed[0]])} became {quote(found[renamed[0]])}"
        warnings.append(f"agent {agent_name!r} renamed {len(renamed)} special tokens (id {renamed[0]}: {first})")
    if added:
        warnings.append(
            f"agent {agent_name!r} added {len(added)} tokens ({quote(found[added[0]])} first) "
            "that the base's tokenizer does not have"
        )
    return warnings


def token_names(file: Path) -> dict[int, str]:
    """Return id -> token of the tokenizer.json `file`; {} if it is not there."""
    if not file.is_file():
        return {}
    ordinary, added = _tokens(read_json_object(file))
    return ordinary | added


def _tokens(tokenizer: Mapping[str, Any]) -> tuple[dict[int, str], dict[int, str]]:
    """Return id -> token for the ordinary vocabulary and for the added tokens; unknown entries are left out."""
    model = tokenizer.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    ordinary: dict[int, str] = {}
    if isinstance(vocabulary, dict):  # BPE, WordPiece, WordLevel: token -> id
        ordinary = {token_id: token for token, token_id in vocabulary.items() if type(token_id) is int}
    elif isinstance(vocabulary, list):  # Unigram: [token, score] in the order of ids
        ordinary = {i: entry[0] for i, entry in enumerate(vocabulary) if isinstance(entry, list) and entry}
    added = tokenizer.get("added_tokens")
    entries = added if isinstance(added, list) else []
    special = {entry["id"]: entry["content"] for entry in entries if isinstance(entry, dict) and _is_token(entry)}
    return ordinary, special


def _is_token(entry: Mapping[str, Any]) -> bool:
    return type(entry.get("id")) is int and isinstance(entry.get("content"), str)
