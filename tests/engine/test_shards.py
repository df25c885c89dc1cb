"""Contract: whichever threads write a shard's parts in whichever order, its bytes and its digest are right, no thread
waits for one that has failed, and little is held in memory."""

import hashlib
import random
import threading
import time
from pathlib import Path

import pytest
import torch

from rammerge.engine.layout import OutputTensor, Shard
from rammerge.engine.shards import AHEAD, ShardWriter

PART = 1000
PARTS = 60


@pytest.fixture
def shard(tmp_path: Path) -> Shard:
    for name in ("model", "records"):
        (tmp_path / name).mkdir()
    header = b"\x08\0\0\0\0\0\0\0{}      "
    tensor = OutputTensor("w", torch.uint8, (PART * PARTS,), len(header), PART * PARTS)
    return Shard("model.safetensors", header, (tensor,), len(header) + PART * PARTS)


def content(index: int) -> memoryview:
    return memoryview(random.Random(index).randbytes(PART))


def offset(shard: Shard, index: int) -> int:
    return len(shard.header) + index * PART


def in_threads(works: list) -> list[threading.Thread]:
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    return threads


def joined(threads: list[threading.Thread]) -> bool:
    for thread in threads:
        thread.join(timeout=20)
    return not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize("threads", [1, 2, 3, 16])
def test_bytes_and_digest_are_right_in_any_order(shard: Shard, tmp_path: Path, threads: int) -> None:
    writer = ShardWriter(tmp_path, shard)
    begun = iter(range(PARTS))
    lock = threading.Lock()
    pauses = random.Random(threads)

    def work() -> None:
        while True:
            with lock:  # parts are begun in order and take their time
                index, pause = next(begun, None), pauses.uniform(0, 2e-3)
            if index is None:
                return
            time.sleep(pause)
            writer.write(offset(shard, index), content(index))

    assert joined(in_threads([work] * threads))
    record = writer.finish([1, 2])
    expected = shard.header + b"".join(content(index) for index in range(PARTS))
    assert (tmp_path / "model" / shard.file).read_bytes() == expected
    assert record.sha256 == hashlib.sha256(expected).hexdigest()
    assert record.counts == (1, 2)


def test_writers_wait_while_much_is_unhashed_and_go_on_when_the_gap_closes(shard: Shard, tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, shard)
    later = [lambda index=index: writer.write(offset(shard, index), content(index)) for index in range(1, PARTS)]
    first, rest = in_threads(later[:AHEAD]), later[AHEAD:]
    assert joined(first)
    waiting = in_threads(rest)
    time.sleep(0.2)
    assert all(thread.is_alive() for thread in waiting)
    writer.write(offset(shard, 0), content(0))
    assert joined(waiting)
    assert writer.finish([]).sha256


def test_writers_return_when_the_part_before_theirs_has_failed(shard: Shard, tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, shard)
    later = [lambda index=index: writer.write(offset(shard, index), content(index)) for index in range(1, PARTS)]
    waiting = in_threads(later)
    time.sleep(0.1)
    writer.stop()
    assert joined(waiting)
    writer.abandon()
    assert not (tmp_path / "model" / shard.file).exists()
