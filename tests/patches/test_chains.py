"""Contract: the checkpoints of a run are packed against the base or against the one before, and all come back.

A chain with a missing, foreign or damaged link is refused.
"""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch

import rammerge
from rammerge.checkpoints.checkpoint import Checkpoint, open_checkpoint
from rammerge.checkpoints.digest import digest_checkpoint
from rammerge.checkpoints.patched import opening
from rammerge.checkpoints.patched.blocks import BLOCK
from rammerge.checkpoints.patched.container import read_patch
from rammerge.checkpoints.patched.opening import open_patch
from rammerge.checkpoints.patched.place import FILE
from rammerge.errors import InputError
from rammerge.patches.verifying import verify_patch
from tests.fixtures.kills import in_child, note_disk_calls
from tests.patches.families import contents, moved, write

STEPS = 5


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, dict[str, Path], Path]:
    """Return a base, checkpoints of a run from it, and the directory with their patches in chains of three."""
    root = tmp_path_factory.mktemp("run")
    weight = torch.randn((3, BLOCK // 2), generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    base = write(root / "base", {"model.safetensors": {"weight": weight}})
    steps = {}
    for number in range(STEPS):
        weight = moved(weight, 0.02, number)
        steps[f"step-{number}"] = write(root / f"step-{number}", {"model.safetensors": {"weight": weight}})
    reports = rammerge.pack_series(base, steps, root / "chain", chain=3)
    assert list(reports) == list(steps)
    return open_checkpoint(base), steps, root / "chain"


def test_each_member_comes_back(run: tuple[Checkpoint, dict[str, Path], Path], tmp_path: Path) -> None:
    base, steps, chain = run
    parents = [read_patch(chain / name).contents.parent for name in steps]
    assert parents == [None, "step-0", "step-1", None, "step-3"]
    for name, directory in steps.items():
        rammerge.unpack(base, chain / name, tmp_path / name)
        assert contents(tmp_path / name) == contents(directory)
        assert verify_patch(chain / name, base).keys() == contents(directory).keys()


def test_a_chain_is_smaller_than_patches_against_the_base(
    run: tuple[Checkpoint, dict[str, Path], Path], tmp_path: Path
) -> None:
    base, steps, chain = run
    flat = rammerge.pack_series(base, steps, tmp_path)
    sizes = {name: (chain / name / FILE).stat().st_size for name in steps}
    assert sizes["step-2"] < 0.6 * flat["step-2"].nbytes
    assert sizes["step-3"] == flat["step-3"].nbytes


def test_a_member_merges_as_its_agent(run: tuple[Checkpoint, dict[str, Path], Path], tmp_path: Path) -> None:
    base, steps, chain = run
    made = []
    for place in (steps["step-2"].parent, chain):
        report = rammerge.merge(base, {"one": place / "step-2", "other": place / "step-4"}, out=tmp_path / place.name)
        digests = [source.digest for source in report.manifest.sources.values()]
        made.append(((report.path / "model.safetensors").read_bytes(), digests))
    assert made[0] == made[1]


def test_the_agent_before_serves_as_the_base(run: tuple[Checkpoint, dict[str, Path], Path], tmp_path: Path) -> None:
    """A worker that has it needs no other patch."""
    _, steps, chain = run
    shutil.copytree(chain / "step-2", tmp_path / "step-2")
    rammerge.unpack(steps["step-1"], tmp_path / "step-2", tmp_path / "out")
    assert contents(tmp_path / "out") == contents(steps["step-2"])


def test_a_missing_link_is_refused(run: tuple[Checkpoint, dict[str, Path], Path], tmp_path: Path) -> None:
    base, _, chain = run
    for name in ("step-0", "step-2"):
        shutil.copytree(chain / name, tmp_path / name)
    for call in (lambda: open_patch(tmp_path / "step-2", base), lambda: verify_patch(tmp_path / "step-2")):
        with pytest.raises(InputError, match=r"step-2 was packed against the agent of .*step-1, which is not a patch"):
            call()


def test_another_link_is_refused(run: tuple[Checkpoint, dict[str, Path], Path], tmp_path: Path) -> None:
    base, _, chain = run
    shutil.copytree(chain / "step-2", tmp_path / "step-2")
    shutil.copytree(chain / "step-0", tmp_path / "step-1")
    with pytest.raises(InputError, match=r"step-2 was packed against an agent with the digest \w+ and that of .*step-"):
        open_patch(tmp_path / "step-2", base)


def test_a_damaged_link_is_noticed(run: tuple[Checkpoint, dict[str, Path], Path], tmp_path: Path) -> None:
    base, _, chain = run
    shutil.copytree(chain, tmp_path / "chain")
    content = bytearray((tmp_path / "chain" / "step-1" / FILE).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "chain" / "step-1" / FILE).write_bytes(content)
    patch = tmp_path / "chain" / "step-2"
    with pytest.raises(InputError, match=r"step-1/patch\.safetensors differs from what was packed"):
        verify_patch(patch)
    with pytest.raises(InputError, match="so it is damaged"):
        digest_checkpoint(open_patch(patch, base))


@pytest.mark.parametrize("parent", ["../step-1", "..", "", 7, "step-2"], ids=str)
def test_a_parent_is_beside_the_patch(
    run: tuple[Checkpoint, dict[str, Path], Path], tmp_path: Path, parent: object
) -> None:
    base, _, chain = run
    shutil.copytree(chain / "step-2", tmp_path / "step-2")
    file = tmp_path / "step-2" / FILE
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    described = {**json.loads(header["__metadata__"]["contents"]), "parent": parent}
    header["__metadata__"]["contents"] = json.dumps(described)
    text = json.dumps(header, ensure_ascii=False).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    with pytest.raises(InputError, match=r"describes itself wrongly|a chain of more than 32 patches"):
        open_patch(tmp_path / "step-2", base)


def test_a_chain_has_an_end(
    run: tuple[Checkpoint, dict[str, Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, steps, chain = run
    with pytest.raises(InputError, match=r"a chain has 1 to 32 patches, not 33; choose a different --chain"):
        rammerge.pack_series(base, steps, tmp_path, chain=33)
    monkeypatch.setattr(opening, "MOST_LINKS", 3)
    copy = shutil.copytree(chain, tmp_path / "copy")
    with pytest.raises(InputError, match=r"is the end of a chain of more than 3 patches; pack a shorter one"):
        rammerge.pack(base, steps["step-3"], copy / "fourth", after=copy / "step-2")
    with pytest.raises(InputError, match=r"step-2 is not beside .*elsewhere/new, where the new patch would look"):
        rammerge.pack(base, steps["step-3"], tmp_path / "elsewhere" / "new", after=copy / "step-2")


def test_a_series_goes_on_after_a_kill(run: tuple[Checkpoint, dict[str, Path], Path], tmp_path: Path) -> None:
    base, steps, chain = run
    calls: list[None] = []
    with pytest.MonkeyPatch.context() as patch:
        note_disk_calls(patch, lambda: calls.append(None))
        rammerge.pack_series(base, steps, tmp_path / "expected", chain=3)
    out = tmp_path / "out"
    in_child(partial(rammerge.pack_series, base.path, steps, out, chain=3), len(calls) // 2)
    present = [path.name for path in out.iterdir() if not path.name.startswith(".")]
    assert 0 < len(present) < STEPS
    reports = rammerge.pack_series(base, steps, out, chain=3)
    assert reports.keys() == steps.keys() - set(present)
    assert contents(out) == contents(chain)


def test_a_patch_of_another_checkpoint_is_not_replaced(
    run: tuple[Checkpoint, dict[str, Path], Path], tmp_path: Path
) -> None:
    base, steps, _ = run
    rammerge.pack_series(base, {"last": steps["step-0"]}, tmp_path)
    with pytest.raises(InputError, match="exists; choose a different directory or replace it with --force"):
        rammerge.pack_series(base, {"last": steps["step-1"]}, tmp_path)
