"""Contract: what a step made of a model counts only for the files that were hashed, read as this release reads them."""

import json
import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest

from rammerge.checkpoints import forms
from rammerge.checkpoints.checkpoint import open_checkpoint
from rammerge.checkpoints.digest import digest_file
from rammerge.checkpoints.fetch import FETCH_VERSION
from rammerge.errors import RammergeError
from tasks.steps.sources import digests, model_at, refuse_changed


@pytest.mark.parametrize(
    "file", ["model.safetensors", "config.json", "generation_config.json", "tokenizer_config.json"]
)
def test_a_model_whose_files_change_during_a_step_is_refused(
    tiny_model: Callable[[str], Path], tmp_path: Path, file: str
) -> None:
    path = shutil.copytree(tiny_model("llama"), tmp_path / "model")
    (path / "tokenizer_config.json").write_text("{}")
    model = model_at(path)
    refuse_changed(model)
    content = bytearray((path / file).read_bytes() or b" ")
    if file.endswith(".json"):
        (path / file).write_text(json.dumps({**json.loads(content), "changed": True}))
    else:
        content[-1] ^= 1
        (path / file).write_bytes(content)
    with pytest.raises(RammergeError, match="changed while the run used it"):
        refuse_changed(model)


def test_files_whose_hashes_are_known_are_not_read(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    path = shutil.copytree(tiny_model("llama"), tmp_path / "model")
    (path / "tokenizer_config.json").write_text("{}")
    model = open_checkpoint(path)
    known, found = {file.name: digest_file(file) for file in path.iterdir()}, digests(model)
    for file in path.iterdir():
        file.write_bytes(b"changed")
    assert digests(model, known) == found
    weights, content = digests(model)
    assert weights != found[0] and content != found[1]


def test_every_new_reading_of_what_trainers_write_is_a_new_fetch() -> None:
    modules = [import_module(module.name) for module in iter_modules(forms.__path__, f"{forms.__name__}.")]
    versions = [module.VERSION for module in modules if hasattr(module, "VERSION")]
    assert versions and sorted(versions) == sorted(FETCH_VERSION)
