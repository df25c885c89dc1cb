"""Checking that an adapter was trained on the base that it is merged into."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from rammerge.checkpoints.checkpoint import Checkpoint, open_checkpoint
from rammerge.checkpoints.compare import same_tensors
from rammerge.checkpoints.digest import digest_checkpoint
from rammerge.checkpoints.forms.lora_settings import LoraSettings
from rammerge.errors import InputError
from rammerge.system.paths import expanded, is_directory
from rammerge.system.reading import quote

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_CACHED = re.compile(r"models--(?P<owner>[\w.-]+?)--(?P<name>[\w.-]+)")
# Additions to a model's name in quantized copies. Adapters are trained on those, and merged into the model itself.
_QUANTIZED = re.compile(r"[-_.](?:unsloth|bnb|4bit|8bit|int4|int8|nf4|gptq|awq|fp8|gguf)", re.IGNORECASE)


def check_base(settings: LoraSettings, base: Checkpoint) -> list[str]:
    """Check the base that the adapter names: a directory by its weights, a hub id by its name.

    Returns sentences for the user where neither is possible.

    Raises:
        InputError: the adapter was trained on a different base.
    """
    named = settings.config.get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        return []
    if (directory := _directory(named)) is not None:
        if _has_weights_of(directory, base):
            return []
        raise _refuse(settings, named, base, "whose weights differ from those of the base")
    given = _hub_name(base)
    if _HUB_ID.fullmatch(named) and given is not None:
        return _compare_names(settings, named, given, base)
    if _plain_name(named) == _plain_name(given or base.source):
        return []
    return [f"its adapter was trained on {quote(named)}, which is not available here for a comparison with the base"]


def _directory(named: str) -> Path | None:
    """Return the directory that an adapter names as its base, or None if this machine has no such directory."""
    with suppress(InputError):  # the home of a user of another machine
        directory = expanded(named)
        if is_directory(directory):
            return directory
    return None


def _compare_names(settings: LoraSettings, named: str, given: str, base: Checkpoint) -> list[str]:
    revision = settings.config.get("revision")
    if named.lower() == given.lower():
        if isinstance(revision, str) and base.revision is not None and not _same_revision(revision, base):
            return [f"its adapter was trained on revision {quote(revision)} of its base"]
        return []
    if _plain_name(named) == _plain_name(given):
        return [f"its adapter was trained on {quote(named)}, a copy of the base by its name"]
    raise _refuse(settings, named, base, "which is a different model by its name")


def _refuse(settings: LoraSettings, named: str, base: Checkpoint, why: str) -> InputError:
    return InputError(
        f"{settings.file.parent} is an adapter of {quote(named)}, {why}, {base.source}; give the base that it was "
        "trained on, or correct base_model_name_or_path in its adapter_config.json"
    )


def _has_weights_of(directory: Path, base: Checkpoint) -> bool:
    if directory.samefile(base.path):
        return True
    other = open_checkpoint(directory)
    if digest_checkpoint(other).files == digest_checkpoint(base).files:
        return True
    return same_tensors(other.tensors, base.tensors)


def _hub_name(base: Checkpoint) -> str | None:
    """Return the hub id of `base`, from the user's source or from its place in the hub's cache."""
    written = base.source.partition("@")[0]
    if base.revision is not None and _HUB_ID.fullmatch(written):
        return written
    found = next((match for part in base.path.parts if (match := _CACHED.fullmatch(part))), None)
    return f"{found['owner']}/{found['name']}" if found else None


def _same_revision(revision: str, base: Checkpoint) -> bool:
    wanted = base.source.partition("@")[2]
    return revision in ("main", wanted) or str(base.revision).startswith(revision)


def _plain_name(name: str) -> str:
    return _QUANTIZED.sub("", Path(name).name).lower()
