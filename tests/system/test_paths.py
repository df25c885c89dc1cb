"""Contract: whatever a user writes for a path is a path, or one sentence, and never an error of Python's."""

import os
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from rammerge.checkpoints.fetch import fetch
from rammerge.checkpoints.forms.adapter_base import check_base
from rammerge.checkpoints.forms.lora_settings import LoraSettings
from rammerge.cli.parsing import name_agents, split_groups
from rammerge.errors import InputError
from rammerge.system.paths import exists, expanded, is_directory
from rammerge.system.reading import read_text
from tests.engine.models import write

NOBODY = "~nobody-of-this-name/model"
LONG = "a" * 300


def test_a_home_that_nobody_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert expanded("~/model") == Path("/home/me/model") and expanded("model") == Path("model")
    for use in (expanded, fetch, lambda text: name_agents([text])):
        with pytest.raises(InputError, match=f"^{NOBODY} begins with a home directory that this machine does not"):
            use(NOBODY)


@pytest.mark.parametrize("text", [LONG, f"/{LONG}/model", "a\0b"])
def test_text_that_no_path_can_be_is_not_there(text: str) -> None:
    assert not exists(Path(text))
    with pytest.raises(InputError, match="does not exist; give a directory or a hub id"):
        fetch(text)
    with pytest.raises(InputError):
        read_text(Path(text))


def test_what_may_not_be_looked_at_is_not_called_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def deny(*_: object, **__: object) -> NoReturn:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", deny)
    monkeypatch.setattr(Path, "stat", deny)
    monkeypatch.setattr(Path, "is_file", lambda _: False)
    assert not is_directory(tmp_path)
    with pytest.raises(InputError, match="may not be read by this user; change its permissions"):
        fetch(str(tmp_path / "model"))


def test_a_group_may_have_any_number_of_checkpoints() -> None:
    """As text they are longer than any path."""
    sources = [f"checkpoint-{number}" for number in range(100)]
    named = name_agents([f"soup={','.join(sources)}"])
    assert split_groups(named)[0] == {f"soup.{at}": source for at, source in enumerate(sources, start=1)}


@pytest.mark.parametrize("named", [NOBODY, LONG])
def test_an_adapter_may_name_any_text_as_its_base(named: str, tmp_path: Path) -> None:
    base = write(tmp_path / "base", {"weight": torch.ones(2)})
    settings = LoraSettings(tmp_path / "adapter_config.json", {"base_model_name_or_path": named})
    assert "which is not available here" in check_base(settings, base)[0]
