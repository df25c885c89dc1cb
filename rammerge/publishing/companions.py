"""The files that make weights a model: tokenizer and other sidecars, the config, the card."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.checkpoints.companions import with_token_ids
from rammerge.system.atomic import sync, write_text


def write_companions(model: Path, base: Checkpoint, companions: Checkpoint, dtype: str, card: str) -> None:
    """Write the files that complete a model: the sidecar files of `companions` byte for byte, the config, the card.

    The config is the base's, with the output dtype wherever it names a dtype, and the token ids of `companions`.
    """
    for file in companions.sidecars:
        if file.name != "config.json":
            target = model / file.relative_to(companions.path)
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, target)
            sync(target)
    config = with_token_ids(base.config, companions.config)
    write_text(model / "config.json", json.dumps(_with_dtype(config, dtype, top=True), indent=2) + "\n")
    write_text(model / "README.md", card)


def brought_code(companions: Checkpoint) -> list[str]:
    """Return a sentence about the Python files among the sidecars, for the card; [] if there are none."""
    files = sorted(str(file.relative_to(companions.path)) for file in companions.sidecars if file.suffix == ".py")
    if not files:
        return []
    source = f"{companions.source} at {companions.revision}" if companions.revision else companions.source
    return [
        f"the model brings code of {source}, which the merge copied and did not run: {', '.join(files)}; "
        "transformers runs it where it is told to trust remote code"
    ]


def _with_dtype(config: Mapping[str, Any], dtype: str, *, top: bool) -> dict[str, Any]:
    result = {
        key: _with_dtype(value, dtype, top=False) if key.endswith("_config") and isinstance(value, Mapping) else value
        for key, value in config.items()
    }
    names = [key for key in ("dtype", "torch_dtype") if key in result] or (["dtype"] if top else [])
    return {**result, **dict.fromkeys(names, dtype)}
