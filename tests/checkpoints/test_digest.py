"""Contract: a digest follows the content and nothing else.

A remembered hash is never served for a file that changed.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rammerge import store
from rammerge.checkpoints import digest
from rammerge.checkpoints.checkpoint import open_checkpoint
from rammerge.checkpoints.digest import digest_checkpoint, digest_file, fingerprint, sha256_file
from rammerge.system.remembered import remember_sha256
from tests.fixtures.models import edit_config, save_agent
from tests.fixtures.waiting import let_the_clock_tick

TinyModel = Callable[[str], Path]


def age(path: Path, seconds: float = 10) -> None:
    """Make `path` look old. Its change time cannot be set, so tests also move the clock of the code under test."""
    moment = time.time_ns() - int(seconds * 1e9)
    os.utime(path, ns=(moment, moment))


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a minute pass for the code under test, so that files written by the test are settled."""
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + 60 * 10**9)


def test_digest_is_that_of_the_content(tiny_model: TinyModel, tmp_path: Path) -> None:
    model = tiny_model("llama")
    copy = shutil.copytree(model, tmp_path / "elsewhere")
    (copy / "tokenizer.json").write_text("{}")
    found = digest_checkpoint(open_checkpoint(model))
    assert found == digest_checkpoint(open_checkpoint(copy))
    assert list(found.files) == ["config.json", "model.safetensors"]
    content = (model / "model.safetensors").read_bytes()
    assert found.files["model.safetensors"].sha256 == hashlib.sha256(content).hexdigest()
    assert found.files["model.safetensors"].size == len(content)
    lines = "".join(f"{name} {file.size} {file.sha256}\n" for name, file in found.files.items())
    assert found.digest == hashlib.sha256(lines.encode()).hexdigest()


def test_digest_notices_weights_and_config(tiny_model: TinyModel, tmp_path: Path) -> None:
    model = tiny_model("llama")
    agent = save_agent(model, tmp_path / "agent", density=0.001)
    other = edit_config(shutil.copytree(model, tmp_path / "other"), rope_theta=1.0)
    assert len({digest_checkpoint(open_checkpoint(path)).digest for path in (model, agent, other)}) == 3


@pytest.mark.usefixtures("later")
def test_an_unchanged_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"content")
    first = digest_file(file)
    monkeypatch.setattr(digest, "sha256_file", lambda _: pytest.fail("hashed again"))
    assert digest_file(file) == first


@pytest.mark.usefixtures("later")
def test_a_changed_file_is_hashed_again(tmp_path: Path) -> None:
    """Same size and same modification time, as a careless copy leaves it: the change time still differs."""
    file = tmp_path / "file"
    file.write_bytes(b"one")
    status = file.stat()
    first = digest_file(file)
    let_the_clock_tick(file)
    file.write_bytes(b"two")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert digest_file(file) != first
    assert digest_file(file).sha256 == hashlib.sha256(b"two").hexdigest()


def test_a_file_written_just_now_is_not_remembered(
    tmp_path: Path, rammerge_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"one")
    just_now = file.stat().st_ctime_ns + 10**8
    monkeypatch.setattr(time, "time_ns", lambda: just_now)
    digest_file(file)
    assert not list((rammerge_home / "digests").glob("*.json"))


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize("damage", ["", "[]", "{", '{"status": 3}'])
def test_a_damaged_memory_only_costs_the_hashing(tmp_path: Path, rammerge_home: Path, damage: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"content")
    first = digest_file(file)
    (memory,) = (rammerge_home / "digests").glob("*.json")
    memory.write_text(damage)
    assert digest_file(file) == first
    assert json.loads(memory.read_text())["sha256"] == first.sha256


@pytest.mark.usefixtures("later")
def test_pruning_forgets_files_that_are_gone_or_have_changed(tmp_path: Path, rammerge_home: Path) -> None:
    files = {name: tmp_path / name for name in ("kept", "gone", "changed")}
    for name, file in files.items():
        file.write_text(name)
        digest_file(file)
    of_both = remember_sha256("two of a patch", [files["kept"], files["gone"]], lambda: "0" * 64)
    remember_sha256("one of a patch", [files["kept"]], lambda: of_both)
    memories = rammerge_home / "digests"
    assert len(list(memories.iterdir())) == 5
    for memory in memories.iterdir():  # as earlier versions wrote it
        content = json.loads(memory.read_text())
        memory.write_text(
            json.dumps({key: content[key] for key in content if key != "sources" or len(content[key]) > 1})
        )
    remember_sha256("one of a patch", [files["kept"]], lambda: pytest.fail("hashed again"))
    (memories / "damaged.json").write_text("{")
    files["gone"].unlink()
    files["changed"].write_text("another")
    store.prune(unused_days=None, dry_run=True)
    assert len(list(memories.iterdir())) == 6
    store.prune(unused_days=None)
    assert [json.loads(memory.read_text())["path"] for memory in memories.iterdir()] == [str(files["kept"])]


def test_fingerprint_follows_the_status(tiny_model: TinyModel, tmp_path: Path) -> None:
    model = shutil.copytree(tiny_model("llama"), tmp_path / "model")
    first = fingerprint(open_checkpoint(model))
    assert fingerprint(open_checkpoint(model)) == first
    age(model / "model.safetensors")
    assert fingerprint(open_checkpoint(model)) != first


def test_sha256_of_a_file_longer_than_the_buffer(tmp_path: Path) -> None:
    content = os.urandom(9_000_001)
    (tmp_path / "file").write_bytes(content)
    assert sha256_file(tmp_path / "file") == hashlib.sha256(content).hexdigest()
