"""Contract: a damaged, foreign or hostile patch is refused in one sentence, before memory or disk are spent on it.

Never are bytes other than the agent's taken for the agent's.
"""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rammerge
from rammerge.checkpoints.checkpoint import Checkpoint, open_checkpoint
from rammerge.checkpoints.digest import digest_checkpoint
from rammerge.checkpoints.patched.container import ROW
from rammerge.checkpoints.patched.opening import open_patch
from rammerge.checkpoints.patched.place import FILE
from rammerge.errors import InputError, RammergeError
from rammerge.patches import unpacking
from rammerge.patches.verifying import verify_patch
from tests.patches.families import contents, odd_family


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Path, Path]:
    """Return a base, its agent, and the patch."""
    root = tmp_path_factory.mktemp("packed")
    base, agent = odd_family(root)
    rammerge.pack(base, agent, root / "patch")
    return open_checkpoint(base), agent, root / "patch"


def damaged(patch: Path, copy: Path, change: Callable[[bytearray], Any]) -> Path:
    """Copy a patch with a different container."""
    shutil.copytree(patch, copy, dirs_exist_ok=True)
    content = bytearray((patch / FILE).read_bytes())
    change(content)
    (copy / FILE).write_bytes(content)
    return copy


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_flipped_bit_goes_unnoticed(
    packed: tuple[Checkpoint, Path, Path], tmp_path: Path, place: float, bit: int
) -> None:
    base, agent, patch = packed

    def flip(content: bytearray) -> None:
        content[int(place * len(content))] ^= 1 << bit

    copy = damaged(patch, tmp_path / "copy", flip)
    try:
        rammerge.unpack(base, copy, tmp_path / "out", force=True)
    except RammergeError:
        return
    # The flip did no harm: as in a space between two values.
    expected = contents(agent)
    assert {name: expected[name] for name in expected if name != "optimizer.pt"} == contents(tmp_path / "out")


@given(share=st.floats(0, 1, exclude_max=True))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_truncated_patch_is_refused(packed: tuple[Checkpoint, Path, Path], tmp_path: Path, share: float) -> None:
    base, _, patch = packed

    def cut(content: bytearray) -> None:
        del content[int(share * len(content)) :]

    with pytest.raises(InputError):
        open_patch(damaged(patch, tmp_path / "copy", cut), base)


def test_verify_finds_a_flipped_bit_without_the_base(packed: tuple[Checkpoint, Path, Path], tmp_path: Path) -> None:
    def flip(content: bytearray) -> None:
        content[-1] ^= 1

    verify_patch(packed[2])
    with pytest.raises(InputError, match=r"patch\.safetensors differs from what was packed, so it is damaged"):
        verify_patch(damaged(packed[2], tmp_path / "copy", flip))


@pytest.mark.parametrize("change", ["missing", "changed"])
def test_companions_are_checked(packed: tuple[Checkpoint, Path, Path], tmp_path: Path, change: str) -> None:
    base, _, patch = packed
    copy = damaged(patch, tmp_path / "copy", bytes)
    if change == "missing":
        (copy / "tokenizer.json").unlink()
    else:
        (copy / "tokenizer.json").write_text("{}")
    for check in (lambda: verify_patch(copy), lambda: rammerge.unpack(base, copy, tmp_path / "out")):
        with pytest.raises(InputError, match=r"copy/tokenizer\.json (is not what was packed|does not exist)"):
            check()
    assert not (tmp_path / "out").exists()


def rewritten(patch: Path, copy: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Copy a patch that says something else of itself."""

    def rewrite(content: bytearray) -> None:
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        described = json.loads(header["__metadata__"]["contents"])
        change(described)
        header["__metadata__"]["contents"] = json.dumps(described)
        text = json.dumps(header).encode()
        content[: 8 + length] = struct.pack("<Q", len(text)) + text

    return damaged(patch, copy, rewrite)


def rename(key: str, old: str, new: str) -> Callable[[dict[str, Any]], None]:
    def change(described: dict[str, Any]) -> None:
        described[key][new] = described[key].pop(old)

    return change


SHARD = "model-00001-of-00002.safetensors"
HOSTILE: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a later version": (lambda it: it.update(version=2), "has version 2 of the format"),
    "other blocks": (lambda it: it.update(block=1 << 40), "of the format"),
    "no base": (lambda it: it.pop("base"), "describes itself wrongly"),
    "a weight outside": (rename("weights", SHARD, "../model.safetensors"), "is not the name of a weight file"),
    "a companion outside": (rename("companions", "README.md", "../README.md"), "is not a file beside the patch"),
    "an absolute companion": (rename("companions", "README.md", "/etc/passwd"), "is not a file beside the patch"),
    "a companion over a weight": (rename("companions", "README.md", SHARD), "names .* twice"),
    "a size that is none": (lambda it: it["weights"][SHARD].update(size=-1), "describes itself wrongly"),
    "a size that is too large": (lambda it: it["weights"][SHARD].update(size=1 << 62), "so it is not a valid"),
    "a size that is too small": (lambda it: it["weights"][SHARD].update(size=10), "claims a header of"),
    "a file that it does not store": (rename("weights", SHARD, "x.safetensors"), "does not store 'header:x"),
    "lists for objects": (lambda it: it.update(weights=[]), "describes itself wrongly"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_it_says_of_itself_is_checked(packed: tuple[Checkpoint, Path, Path], tmp_path: Path, name: str) -> None:
    change, message = HOSTILE[name]
    copy = rewritten(packed[2], tmp_path / "copy", change)
    with pytest.raises(InputError, match=message):
        open_patch(copy, packed[0])


ROWS: dict[str, dict[str, int]] = {
    "an unknown mode": {"mode": 5},
    "a base's block with frames": {"mode": 0},
    "a bitmap that is too long": {"mode": 1, "content": 1 << 20},
    "gaps that are too long": {"mode": 2, "content": 1 << 31},
    "too many planes": {"planes": 3},
    "bytes with a bitmap": {"mode": 3, "planes": 1},
    "frames beyond the file": {"second": 1 << 31},
    "frames that are missing": {"first": 0},
}


@pytest.mark.parametrize("name", ROWS)
def test_tables_are_checked(packed: tuple[Checkpoint, Path, Path], tmp_path: Path, name: str) -> None:
    """The end of the container is the row of its last tensor's last block."""
    base, _, patch = packed

    def rewrite(content: bytearray) -> None:
        row = np.frombuffer(bytes(content[-ROW.itemsize :]), ROW).copy()
        for field, value in ROWS[name].items():
            row[field] = value
        content[-ROW.itemsize :] = row.tobytes()

    copy = damaged(patch, tmp_path / "copy", rewrite)
    with pytest.raises(InputError, match=r"has an impossible table of blocks for 'lm_head\.weight'"):
        open_patch(copy, base)


def open_files() -> list[str]:
    return sorted(file.name for file in Path("/proc/self/fd").iterdir())


def test_what_cannot_be_unpacked_leaves_no_file_open(
    packed: tuple[Checkpoint, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, _, patch = packed

    def vanished(_: object) -> NoReturn:
        raise InputError("the base is gone")

    monkeypatch.setattr(unpacking, "opened", vanished)
    before = open_files()
    with pytest.raises(InputError, match="the base is gone"):
        rammerge.unpack(base, patch, tmp_path / "out")
    assert open_files() == before


def test_a_model_is_not_a_patch(packed: tuple[Checkpoint, Path, Path], tmp_path: Path) -> None:
    base, agent, _ = packed
    with pytest.raises(InputError, match="is not a patch; give a directory that `rammerge pack` wrote"):
        rammerge.unpack(base, agent, tmp_path / "out")
    shutil.copyfile(agent / SHARD, tmp_path / FILE)
    with pytest.raises(InputError, match="is not a patch; give a directory that `rammerge pack` wrote"):
        rammerge.unpack(base, tmp_path, tmp_path / "out")


def test_the_digest_of_another_agent_is_not_believed(packed: tuple[Checkpoint, Path, Path], tmp_path: Path) -> None:
    """Work that is kept for that agent must not be found for this one, nor the other way round."""
    base, agent, patch = packed

    def claim(described: dict[str, Any]) -> None:
        described["weights"][SHARD]["sha256"] = "0" * 64

    claiming = open_patch(rewritten(patch, tmp_path / "copy", claim), base)
    with pytest.raises(InputError, match=f"gives a different {SHARD} from the one that was packed"):
        digest_checkpoint(claiming)
    assert digest_checkpoint(open_patch(patch, base)) == digest_checkpoint(open_checkpoint(agent))


def test_an_output_that_exists_or_holds_an_input_is_refused(packed: tuple[Checkpoint, Path, Path]) -> None:
    base, agent, patch = packed
    for call in (lambda: rammerge.pack(base, agent, patch), lambda: rammerge.unpack(base, patch, agent)):
        with pytest.raises(InputError, match="exists; choose a different directory or replace it with --force"):
            call()
    with pytest.raises(InputError, match="which must not be replaced"):
        rammerge.unpack(base, patch, patch, force=True)
