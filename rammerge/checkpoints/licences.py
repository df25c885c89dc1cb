"""The licences of checkpoints, and what they are known to say against giving away a merge of them.

The sources are model cards, LICENSE files, and a small table of well-known licences. This is not legal advice, and
silence does not mean that nothing stands against it.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.errors import InputError
from rammerge.system.reading import read_start

Terms = Literal["permissive", "copyleft", "non-commercial", "no derivatives", "custom"]

CARD = "README.md"
_FRONT_MATTER = re.compile(r"---[ \t\r]*\n(.*?)\n---[ \t\r]*(?:\n|\Z)", re.DOTALL)
_MOST_BYTES = 1 << 20
# Model hubs' identifiers, by how they begin; the first that fits counts.
_TERMS: tuple[tuple[str, Terms], ...] = (
    ("cc-by-nc-nd", "no derivatives"),
    ("cc-by-nd", "no derivatives"),
    ("cc-by-nc", "non-commercial"),
    ("cc-by-sa", "copyleft"),
    ("cc", "permissive"),
    ("agpl", "copyleft"),
    ("gpl", "copyleft"),
    ("lgpl", "copyleft"),
    ("apache", "permissive"),
    ("mit", "permissive"),
    ("bsd", "permissive"),
    ("isc", "permissive"),
    ("unlicense", "permissive"),
    ("llama", "custom"),
    ("gemma", "custom"),
    ("openrail", "custom"),
    ("bigscience", "custom"),
    ("creativeml", "custom"),
    ("bigcode", "custom"),
    ("qwen-research", "non-commercial"),
    ("qwen", "custom"),
    ("deepseek", "custom"),
    ("mrl", "non-commercial"),
    ("mnpl", "non-commercial"),
)
# The first words of licence files.
_TEXTS = (
    ("apache license", "apache-2.0"),
    ("mit license", "mit"),
    ("permission is hereby granted, free of charge", "mit"),
    ("gnu affero general public license", "agpl-3.0"),
    ("gnu lesser general public license", "lgpl-3.0"),
    ("gnu general public license", "gpl-3.0"),
    ("gemma terms of use", "gemma"),
    ("llama", "llama"),
    ("attribution-noncommercial", "cc-by-nc-4.0"),
    ("attribution-sharealike", "cc-by-sa-4.0"),
)
_HEAD_CHARACTERS = 600


def find_licence(directory: Path) -> str | None:
    """Return the licence of a model directory, as model hubs call it; None if it does not say."""
    return _of_card(_read(directory / CARD)) or next(
        (found for file in sorted(directory.glob("LICEN[SC]E*")) if (found := _of_text(_read(file)))), None
    )


def terms_of(licence: str) -> Terms | None:
    """Return what kind of terms a licence has; None if it is not known here."""
    name = licence.lower()
    return next((terms for prefix, terms in _TERMS if name.startswith(prefix)), None)


def licence_problems(sources: Mapping[str, Checkpoint]) -> list[str]:
    """Return what licences are known to say against giving away a merge of `sources`, one sentence each."""
    return about_licences({name: find_licence(source.path) for name, source in sources.items()})


def about_licences(licences: Mapping[str, str | None]) -> list[str]:
    """Return what these licences are known to say against giving away a merge of their models."""
    return list(_problems({name: licence for name, licence in licences.items() if licence}))


def _problems(licences: Mapping[str, str]) -> Iterator[str]:
    by_terms: dict[Terms | None, dict[str, str]] = {}
    for name, licence in licences.items():
        by_terms.setdefault(terms_of(licence), {})[name] = licence
    closed, copyleft = by_terms.get("no derivatives", {}), by_terms.get("copyleft", {})
    limited = by_terms.get("non-commercial", {})
    bound = limited | by_terms.get("custom", {})
    if closed:
        yield f"a merge changes its models, which the licence of {_listed(closed)} does not allow; replace that model"
    if copyleft and bound:
        yield (
            f"the licences of {_listed(copyleft)} and of {_listed(bound)} contradict each other: the first allows no "
            "further restriction, the second has some; do not give the merge away, or replace a model"
        )
    if len(set(copyleft.values())) > 1:
        yield f"the licences of {_listed(copyleft)} each want the merge under their own terms; ask whether that can be"
    if limited and len(limited) < len(licences):
        yield f"the licence of {_listed(limited)} allows no commercial use, so the merge has none either"
    if len({_family(licence) for licence in by_terms.get("custom", {}).values()}) > 1:
        yield f"the merge has to keep the terms of each of {_listed(by_terms['custom'])}; read them"


def _family(licence: str) -> str:
    return re.split(r"[-\d. ]", licence.lower())[0]


def _listed(licences: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({licence})" for name, licence in licences.items())


def _of_card(text: str) -> str | None:
    """Return the licence in the front matter of a model card."""
    if (found := _FRONT_MATTER.match(text)) is None:
        return None
    import yaml  # most checkpoints on disk have no card

    said: Any = None
    # Other people's cards are often wrong: not YAML, a date that does not exist, or nested without end.
    with suppress(yaml.YAMLError, ValueError, RecursionError):
        said = yaml.safe_load(found[1])
    licence = said.get("license") if isinstance(said, dict) else None
    if licence == "other":
        licence = said.get("license_name") or licence
    if isinstance(licence, list):
        licence = licence[0] if licence else None
    # Only text: with aliases, a short file can hold a list that is endless as text.
    return " ".join(licence.split())[:80] or None if isinstance(licence, str) else None


def _of_text(text: str) -> str | None:
    head = " ".join(text[:_HEAD_CHARACTERS].lower().split())
    return next((licence for words, licence in _TEXTS if words in head), None)


def _read(file: Path) -> str:
    with suppress(InputError):
        return read_start(file, _MOST_BYTES).decode("utf-8", "replace")
    return ""
