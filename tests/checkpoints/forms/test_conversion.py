"""Contract: conversion turns what trainers leave into safetensors with the same tensors, once per content."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rammerge import store
from rammerge.checkpoints.fetch import fetch
from rammerge.checkpoints.forms import conversion
from rammerge.errors import RammergeError
from tests.fixtures.states import equal, pickled, refused, weights


def test_pickled_weights(agent: Path, rammerge_home: Path) -> None:
    state = weights(agent)
    (agent / "tokenizer.json").write_text("{}")
    pickled(agent, {**state, "lm_head.weight": state["model.embed_tokens.weight"]})
    said: list[str] = []

    checkpoint = fetch(str(agent), progress=said.append)

    assert checkpoint.source == str(agent)
    assert checkpoint.path.is_relative_to(rammerge_home)
    assert checkpoint.tied == {"lm_head.weight": "model.embed_tokens.weight"}
    assert equal({name: weights(checkpoint.path)[name] for name in checkpoint.tensors}, state)
    assert {file.name for file in checkpoint.sidecars} == {"config.json", "generation_config.json", "tokenizer.json"}
    record = json.loads((checkpoint.path / "conversion.json").read_text())
    assert record["source"] == str(agent)
    assert list(record["files"]) == [str(agent / "pytorch_model.bin")]
    assert said == [f"converting {agent} (pickled weights)"]


def test_a_conversion_is_kept_until_its_input_changes(agent: Path, tmp_path: Path) -> None:
    state = weights(agent)
    pickled(agent, state)
    first = fetch(str(agent))
    elsewhere = shutil.copytree(agent, tmp_path / "elsewhere")
    assert fetch(str(elsewhere), progress=lambda line: pytest.fail(line)).path == first.path
    pickled(agent, {name: tensor + 1 for name, tensor in state.items()})
    assert fetch(str(agent)).path != first.path
    (first.path / "model.safetensors").write_bytes(b"damaged")
    assert equal(weights(fetch(str(elsewhere)).path), state)


def test_what_was_converted_before_is_found_without_torch(agent: Path) -> None:
    pickled(agent, weights(agent))
    path = fetch(str(agent)).path
    code = (
        "import sys; from rammerge.checkpoints.fetch import fetch\n"
        "print(fetch(sys.argv[1]).path, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(agent)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(path), "False"]


def test_a_conversion_for_which_there_is_no_room(agent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = weights(agent)
    pickled(agent, state)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 100))
        size = sum(tensor.nbytes for tensor in state.values())
        refused(agent, f"the conversion of .* needs {size / 1e3:,.1f} kB and .* has 100 bytes free")

    def full(directory: Path, *_: object) -> None:
        (directory / "model.safetensors").write_bytes(b"begun")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(conversion, "write_model", full)
        with pytest.raises(RammergeError, match=r"No space left on device.*make room"):
            fetch(str(agent))
    assert equal(weights(fetch(str(agent)).path), state)


def test_a_store_entry_is_what_was_written(agent: Path) -> None:
    state = weights(agent)
    path = fetch(str(pickled(agent, state))).path
    assert store.find("converted", path.name) is not None
