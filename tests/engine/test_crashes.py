"""Contract: a merge that dies at any moment, or finds the disk full, leaves nothing that could pass for a model.

The next run finishes with the same bytes and redoes at most the shards that were in flight.
"""

import errno
import fcntl
import itertools
import os
import random
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from rammerge.checkpoints.layout import Shard
from rammerge.engine.options import Dtype, MergeOptions
from rammerge.engine.output import shards
from rammerge.engine.output.disk import allocate
from rammerge.engine.passes.measuring import measure
from rammerge.engine.passes.merging import merge_shards
from rammerge.engine.passes.statistics import Statistics
from rammerge.errors import InputError, RammergeError
from rammerge.publishing.manifest import verify
from rammerge.publishing.staging import locked_staging, staging_directory
from rammerge.rules import ResolvedMethod, resolve
from rammerge.system import libc
from tests.engine.models import DATA_FREE, Models, merge, sparse_family, weight_bytes, write, write_family
from tests.fixtures.kills import in_child, note_disk_calls

pytestmark = pytest.mark.long

SHAPES = {f"layer.{index}.weight": (200, 100) for index in range(6)}
OPTIONS = MergeOptions("bfloat16", shard_size=45_000, compile="never", threads=2)
METHOD = resolve("ram_plus")
KILLS = 50


@pytest.fixture
def family(tmp_path: Path) -> Models:
    return write_family(tmp_path, *sparse_family(SHAPES, [0.05, 0.5]))


@pytest.fixture
def expected(family: Models, tmp_path: Path) -> dict[str, bytes]:
    return weight_bytes(merge(*family, METHOD, tmp_path / "expected", OPTIONS).path)


def merge_in_child(family: Models, method: ResolvedMethod, out: Path, moment: int | None) -> bool:
    """Merge in another process, killed before its call number `moment` to the disk; return whether it finished."""
    base, agents = family
    sources = {name: agent.path for name, agent in agents.items()}
    return in_child(partial(merge_by_name, base.path, sources, method.method.name, out), moment)


def merge_by_name(base: Path, agents: Mapping[str, Path], method: str, out: Path) -> None:
    merge(base, agents, resolve(method), out, OPTIONS)


# The second also keeps updates of matrices beside its output.
@pytest.mark.parametrize(("method", "kills"), [(METHOD, KILLS), (resolve("tsv_m"), 15)], ids=["ram_plus", "tsv_m"])
def test_kill_9_at_any_moment(family: Models, tmp_path: Path, method: ResolvedMethod, kills: int) -> None:
    """Between two calls to the disk nothing changes on it, so a moment is such a call, not a time."""
    calls: list[None] = []
    with pytest.MonkeyPatch.context() as patch:
        note_disk_calls(patch, lambda: calls.append(None))
        expected = weight_bytes(merge(*family, method, tmp_path / "counted", OPTIONS).path)
    chances, killed = random.Random(0), 0
    for attempt in itertools.count():
        if killed >= kills:
            break
        out = tmp_path / f"out{attempt}"
        for _ in range(3):  # the same merge may die more than once
            if merge_in_child(family, method, out, chances.randrange(len(calls))):
                break
            killed += 1
            if out.exists():  # it died after the rename that publishes
                break
        assert out.exists() or merge_in_child(family, method, out, None)
        assert weight_bytes(out) == expected
        verify(out)


def test_finished_shards_are_not_merged_again(
    family: Models, expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    finish = shards.ShardWriter.finish
    done: list[str] = []

    def stop_after_two(writer: shards.ShardWriter, counts: Sequence[int]) -> shards.ShardRecord:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(writer.shard.file)
        return finish(writer, counts)

    with monkeypatch.context() as patch:
        patch.setattr(shards.ShardWriter, "finish", stop_after_two)
        with pytest.raises(KeyboardInterrupt):
            merge(*family, METHOD, out, MergeOptions("bfloat16", shard_size=45_000, compile="never", threads=1))
    assert not out.exists()
    opened: list[str] = []
    make = shards.ShardWriter.__init__

    def note(writer: shards.ShardWriter, directory: Path, shard: Shard, output: shards.Output) -> None:
        opened.append(shard.file)
        make(writer, directory, shard, output)

    monkeypatch.setattr(shards.ShardWriter, "__init__", note)
    merge(*family, METHOD, out, OPTIONS)
    assert weight_bytes(out) == expected
    assert len(done) == 2
    assert not set(opened) & set(done)


@pytest.mark.parametrize(
    "method",
    [METHOD, resolve("ties"), resolve("ties", None, {"scope": "tensor"}), resolve("ram")],
    ids=["ram_plus", "ties", "ties by tensor", "ram"],
)
def test_statistics_are_not_made_again(
    family: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: ResolvedMethod
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("rammerge.publishing.stages.merge_shards", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            merge(*family, method, tmp_path / "out", OPTIONS)
    expected = merge(*family, method, tmp_path / "expected", OPTIONS)
    monkeypatch.delattr("rammerge.engine.passes.measuring.measure")
    found = merge(*family, method, tmp_path / "out", OPTIONS)
    assert weight_bytes(found.path) == weight_bytes(expected.path)
    assert found.overlap == expected.overlap


def test_a_finished_shard_that_was_damaged_is_merged_again(
    family: Models, expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("rammerge.publishing.stages.publish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            merge(*family, METHOD, out, OPTIONS)
    victim = sorted(staging_directory(out).glob("model/*.safetensors"))[1]
    content = bytearray(victim.read_bytes())
    content[-1] ^= 1
    victim.write_bytes(content)
    merge(*family, METHOD, out, OPTIONS)
    assert weight_bytes(out) == expected


def test_full_disk(family: Models, expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    calls: list[int] = []

    def full(descriptor: int, size: int) -> None:
        calls.append(size)
        if len(calls) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        allocate(descriptor, size)

    with monkeypatch.context() as patch:
        patch.setattr(shards, "allocate", full)
        with pytest.raises(RammergeError, match=r"no space left in .*; make room and run again: the finished shards"):
            merge(*family, METHOD, out, OPTIONS)
    assert not out.exists()
    kept = {file.name for file in staging_directory(out).glob("model/*.safetensors")}
    assert kept
    merge(*family, METHOD, out, OPTIONS)
    assert weight_bytes(out) == expected


@pytest.mark.parametrize("where", ["a record", "a companion", "the manifest"])
def test_full_disk_between_the_shards(
    family: Models, expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    name = {
        "a record": "rammerge.engine.output.shards.write_json",
        "a companion": "rammerge.publishing.companions.write_text",
        "the manifest": "rammerge.publishing.manifest.write_json",
    }[where]

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(name, full)
        with pytest.raises(RammergeError, match=r"no space left in .*; make room and run again: the finished shards"):
            merge(*family, METHOD, tmp_path / "out", OPTIONS)
    assert not (tmp_path / "out").exists()
    merge(*family, METHOD, tmp_path / "out", OPTIONS)
    assert weight_bytes(tmp_path / "out") == expected


def failing(call: Callable[..., Any], chances: random.Random) -> Callable[..., Any]:
    error = chances.choice([errno.ENOSPC, errno.EIO, errno.EINVAL, errno.EDQUOT])
    first, once = chances.randrange(12), chances.choice([True, False])
    calls = itertools.count()

    def fail(*arguments: Any) -> Any:
        number = next(calls)
        if number == first or (number > first and not once):
            raise OSError(error, os.strerror(error))
        return call(*arguments)

    return fail


@pytest.mark.parametrize("call", [os.pwrite, os.fsync, os.ftruncate, os.preadv, libc.call], ids=lambda it: it.__name__)
def test_any_call_of_the_disk_may_fail(
    family: Models,
    expected: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: Callable[..., Any],
) -> None:
    """Once or from then on, by any error, at any moment, under any number of threads."""
    chances, out = random.Random(call.__name__), tmp_path / "out"
    failed = 0
    for _ in range(15):
        with monkeypatch.context() as patch:
            patch.setattr(libc if call is libc.call else os, call.__name__, failing(call, chances))
            try:
                merge(*family, METHOD, out, replace(OPTIONS, threads=chances.choice([1, 2, 5])))
            except RammergeError:
                failed += 1
        if not out.exists():
            merge(*family, METHOD, out, OPTIONS)
        assert weight_bytes(out) == expected
        shutil.rmtree(out)
        shutil.rmtree(staging_directory(out), ignore_errors=True)
    assert failed


def test_a_disk_that_fails_when_the_model_has_its_name(
    family: Models, expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, fsync = tmp_path / "out", os.fsync

    def fail(descriptor: int) -> None:
        if out.exists():
            raise OSError(errno.EIO, "Input/output error")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(RammergeError, match=r"out is complete, but then .* failed \(Input/output error\); mend"):
        merge(*family, METHOD, out, OPTIONS)
    verify(out)
    assert weight_bytes(out) == expected


def test_a_disk_that_fails_leaves_no_file_open(
    family: Models, expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed_over, finish = threading.Event(), shards.ShardWriter.finish

    def finish_then(writer: shards.ShardWriter, counts: Any) -> shards.ShardRecord:
        handed_over.set()
        return finish(writer, counts)

    def fail(*_: object) -> int:
        handed_over.wait()
        raise OSError(errno.EIO, "Input/output error")

    def opened() -> list[Path]:
        links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        return [file for link in links if (file := link.readlink()).is_relative_to(tmp_path)]

    for where in ("os.pwrite", "os.fsync", "rammerge.engine.output.shards.write_json"):
        handed_over.clear()
        with monkeypatch.context() as patch:
            patch.setattr(shards.ShardWriter, "finish", finish_then)
            patch.setattr(where, fail)
            with pytest.raises((OSError, RammergeError)):
                merge(*family, METHOD, tmp_path / "out", OPTIONS)
        assert opened() == []
    merge(*family, METHOD, tmp_path / "out", OPTIONS)
    assert weight_bytes(tmp_path / "out") == expected


def test_a_home_that_cannot_be_written_is_no_obstacle(
    family: Models, expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("a file where a directory should be")
    monkeypatch.setenv("RAMMERGE_HOME", str(tmp_path / "file" / "home"))
    monkeypatch.setattr("rammerge.system.remembered._RACY_NS", -(1 << 62))  # that it tries to remember the digests
    settings = MergeOptions("bfloat16", shard_size=45_000, compile="always", threads=2)
    assert weight_bytes(merge(*family, METHOD, tmp_path / "out", settings).path) == expected


def test_changed_inputs_or_settings_start_afresh(
    family: Models, expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    base, agents = family
    with monkeypatch.context() as patch:
        patch.setattr("rammerge.publishing.stages.publish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            merge(base, agents, resolve("ram"), out, OPTIONS)
        with pytest.raises(KeyboardInterrupt):
            _, (_, other) = sparse_family(SHAPES, [0.1, 0.2], seed=9)
            merge(base, {**agents, "agent1": write(tmp_path / "other", other)}, METHOD, out, OPTIONS)
    merge(base, agents, METHOD, out, OPTIONS)
    assert weight_bytes(out) == expected


def test_inputs_that_change_meanwhile_are_noticed(
    family: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, agents = family
    file = agents["agent0"].weight_files[0]

    def touch_then_count(*arguments: Any) -> Statistics:
        os.utime(file, ns=(1, 1))
        return measure(*arguments)

    monkeypatch.setattr("rammerge.engine.passes.measuring.measure", touch_then_count)
    with pytest.raises(RammergeError, match="agent0 changed after it was opened"):
        merge(base, agents, METHOD, tmp_path / "out", OPTIONS)
    assert not (tmp_path / "out").exists()


def test_what_was_made_of_inputs_that_were_others_meanwhile_is_not_taken_up(
    family: Models, expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, file = tmp_path / "out", family[1]["agent0"].weight_files[0]
    content = file.read_bytes()

    def disturbed(*arguments: Any) -> Any:
        file.write_bytes(content[:-40_000] + bytes(40_000))
        try:
            return merge_shards(*arguments)
        finally:
            file.write_bytes(content)

    with monkeypatch.context() as patch:
        patch.setattr("rammerge.publishing.stages.merge_shards", disturbed)
        with pytest.raises(RammergeError, match="agent0 changed after it was opened"):
            merge(*family, METHOD, out, OPTIONS)
    merge(*family, METHOD, out, OPTIONS)
    assert weight_bytes(out) == expected


def test_two_merges_into_one_output(family: Models, tmp_path: Path) -> None:
    with locked_staging(tmp_path / "out"), pytest.raises(InputError, match="another process is writing to"):
        merge(*family, METHOD, tmp_path / "out", OPTIONS)


def test_an_output_on_nfs(family: Models, expected: dict[str, bytes], tmp_path: Path, monkeypatch: Any) -> None:
    """NFS locks only files that are open for writing, and many NFS servers cannot preallocate."""
    lock, call = fcntl.flock, libc.call

    def flock(descriptor: int, operation: int) -> None:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        lock(descriptor, operation)

    def without_fallocate(name: str, *arguments: Any) -> int:
        if name == "fallocate":
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return call(name, *arguments)

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(libc, "call", without_fallocate)
    monkeypatch.delattr(os, "posix_fallocate")  # which would write a byte into every block
    assert weight_bytes(merge(*family, METHOD, tmp_path / "out", OPTIONS).path) == expected
    test_two_merges_into_one_output(family, tmp_path / "another")


def test_a_file_system_without_locks(family: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(InputError, match="without locks"):
        merge(*family, METHOD, tmp_path / "out", OPTIONS)


def test_a_lock_that_its_holder_removed_is_taken_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, lock = tmp_path / "out", fcntl.flock
    taken: list[int] = []

    def late(descriptor: int, operation: int) -> None:
        if not taken:
            (tmp_path / ".out.lock").unlink()  # the other process ended between this one's opening and locking
        taken.append(descriptor)
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with locked_staging(out):
        assert len(taken) == 2
        assert (tmp_path / ".out.lock").exists()


def test_force_replaces_in_one_step(family: Models, expected: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "out"
    merge(*family, resolve("average"), out, OPTIONS)
    with pytest.raises(InputError, match="--force"):
        merge(*family, METHOD, out, OPTIONS)
    merge(*family, METHOD, out, OPTIONS, force=True)
    assert weight_bytes(out) == expected
    assert sorted(entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")) == []


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf], ids=["nan", "inf", "minus-inf"])
@pytest.mark.parametrize("method", DATA_FREE)
def test_non_finite_values_are_named_by_every_method(tmp_path: Path, method: str, value: float) -> None:
    for culprit, name in ((0, "the base"), (2, "agent 'agent1'")):
        base, agents = sparse_family({"a": (30,), "b": (5, 4)}, [0.4, 0.4, 0.4])
        [base, *agents][culprit]["b"][3, 2] = value
        models = write_family(tmp_path / str(culprit), base, agents)
        with pytest.raises(InputError, match=f"{name} has a NaN or an infinity in 'b'"):
            merge(*models, resolve(method), tmp_path / "out", OPTIONS)
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("mask", ["abs", "exact", "relative", "ulp"])
def test_non_finite_values_pass_no_mask(tmp_path: Path, mask: str) -> None:
    base, (first, second) = sparse_family(SHAPES, [0.1, 0.1])
    second["layer.3.weight"][7, 5] = torch.nan
    models = write_family(tmp_path, base, [first, second])
    options = MergeOptions("bfloat16", "stochastic")
    with pytest.raises(InputError, match=r"agent 'agent1' has a NaN or an infinity in 'layer\.3\.weight'"):
        merge(*models, resolve("ram", None, {"mask_mode": mask}), tmp_path / "out", options)


def test_overflow_of_float16_is_refused(tmp_path: Path) -> None:
    base = {"w": torch.full((3,), 60_000.0)}
    models = write_family(tmp_path, base, [{"w": base["w"] + 9000}])
    with pytest.raises(InputError, match="'w' overflows float16; use dtype bfloat16 or float32"):
        merge(*models, resolve("ram"), tmp_path / "out", MergeOptions("float16"))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_overflow_of_what_is_as_wide_as_float32_is_refused_with_what_helps(tmp_path: Path, dtype: Dtype) -> None:
    models = write_family(tmp_path, {"w": torch.zeros(3)}, [{"w": torch.full((3,), 1e30)}])
    with pytest.raises(InputError, match=f"'w' overflows {dtype}; lower the method's scale, or the weights of agents"):
        merge(*models, resolve("task_arithmetic", None, {"scale": 1e10}), tmp_path / "out", MergeOptions(dtype))


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "add"])
def test_verify_names_the_damaged_file(family: Models, tmp_path: Path, damage: str) -> None:
    out = merge(*family, METHOD, tmp_path / "out", OPTIONS).path
    victim = out / "model-00002-of-00006.safetensors"
    content = victim.read_bytes()
    if damage == "flip":
        victim.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "truncate":
        victim.write_bytes(content[:-1])
    elif damage == "remove":
        victim.unlink()
    else:
        victim = out / "extra.safetensors"
        victim.write_bytes(content)
    with pytest.raises(RammergeError, match=victim.name):
        verify(out)
