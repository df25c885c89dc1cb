"""Contract: a shard's bytes and digest are right, whichever threads hand over its chunks in whichever order.

This holds on any file system. No thread waits for one that has failed, and little is held in memory.
"""

import errno
import fcntl
import hashlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rammerge.checkpoints.layout import OutputTensor, Shard
from rammerge.engine.output.chunks import Chunk, cut
from rammerge.engine.output.shards import AHEAD, ALIGNMENT, Output, ShardWriter, most_waiting
from rammerge.numerics.dtypes import DTYPES
from tests.fixtures.waiting import PATIENCE_SECONDS, wait_until

CHUNK = 2 * ALIGNMENT
CHUNKS = 60
SIZE = CHUNK * CHUNKS - 5000
HEADER = b"\x08\0\0\0\0\0\0\0{}      "
CONTENT = HEADER + random.Random(0).randbytes(SIZE - len(HEADER))


@pytest.fixture
def shard(tmp_path: Path) -> Shard:
    return made_shard(tmp_path)


def made_shard(directory: Path) -> Shard:
    for name in ("model", "records"):
        (directory / name).mkdir(parents=True)
    tensor = OutputTensor("w", DTYPES["uint8"], (SIZE - len(HEADER),), len(HEADER), SIZE - len(HEADER))
    return Shard("model.safetensors", HEADER, (tensor,), SIZE)


@pytest.fixture
def output() -> Iterator[Output]:
    made = Output(CHUNK)
    yield made
    made.close()


@pytest.fixture
def writer(tmp_path: Path, shard: Shard, output: Output) -> ShardWriter:
    return ShardWriter(tmp_path, shard, output)


@pytest.fixture
def chunks(shard: Shard) -> list[Chunk]:
    return list(cut(shard, CHUNK))


def hand_over(writer: ShardWriter, output: Output, chunk: Chunk) -> None:
    memory = output.memory()
    memory[: chunk.stop - chunk.start] = CONTENT[chunk.start : chunk.stop]
    writer.write(chunk, memory)
    output.wait_for_room()


def in_threads(works: Sequence[Callable[[], None]]) -> list[threading.Thread]:
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    return threads


def joined(threads: list[threading.Thread]) -> bool:
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    return not any(thread.is_alive() for thread in threads)


@pytest.fixture
def refused(output: Output, monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Return the threads, by number, that were told that there is no room, and so wait for some."""
    numbers, has_room = set(), output.has_room

    def note() -> bool:
        if not (room := has_room()):
            numbers.add(threading.get_ident())
        return room

    monkeypatch.setattr(output, "has_room", note)
    return numbers


def wait_until_waiting(threads: list[threading.Thread], refused: set[int]) -> None:
    """Return once each of `threads` waits for room or has ended."""
    wait_until(lambda: all(each.ident in refused or not each.is_alive() for each in threads), "threads to wait")


def written_by(threads: int, writer: ShardWriter, output: Output, chunks: list[Chunk]) -> bool:
    begun, lock, pauses = iter(chunks), threading.Lock(), random.Random(threads)

    def work() -> None:
        while True:
            with lock:  # chunks are begun in order and take their time
                chunk, pause = next(begun, None), pauses.uniform(0, 2e-3)
            if chunk is None:
                return
            time.sleep(pause)
            hand_over(writer, output, chunk)

    return joined(in_threads([work] * threads))


@pytest.mark.parametrize("threads", [1, 2, 3, 16])
def test_bytes_and_digest_are_right_in_any_order(
    writer: ShardWriter, output: Output, chunks: list[Chunk], tmp_path: Path, threads: int
) -> None:
    assert written_by(threads, writer, output, chunks)
    record = writer.finish([1, 2])
    assert (tmp_path / "model" / record.file).read_bytes() == CONTENT
    assert record.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert record.counts == (1, 2)
    assert output.allocated <= CHUNK * (AHEAD + threads)


def test_more_threads_than_room_write_several_models(tmp_path: Path) -> None:
    models, threads = 3, 16
    output = Output(CHUNK, models)
    shards = {tmp_path / str(number): made_shard(tmp_path / str(number)) for number in range(models)}
    writers = [ShardWriter(directory, shard, output) for directory, shard in shards.items()]
    begun, lock, first = iter(cut(next(iter(shards.values())), CHUNK)), threading.Lock(), threading.Event()

    def work() -> None:
        while True:
            with lock:
                chunk = next(begun, None)
            if chunk is None:
                return
            memories = [output.memory() for _ in writers]
            for memory, writer in zip(memories, writers, strict=True):
                memory[: chunk.stop - chunk.start] = CONTENT[chunk.start : chunk.stop]
                # The first chunk comes to each model after so many later ones that they fill the room.
                if chunk.start:
                    first.set()
                else:
                    first.wait()
                    time.sleep(0.05)
                writer.write(chunk, memory)
            output.wait_for_room()

    assert joined(in_threads([work] * threads))
    assert [writer.finish([]).sha256 for writer in writers] == [hashlib.sha256(CONTENT).hexdigest()] * models
    assert output.allocated <= CHUNK * (most_waiting(models) + threads * models)
    output.close()


@pytest.mark.parametrize("refusal", ["the flag", "the first chunk", "a later chunk", "half a chunk"])
def test_file_systems_that_do_not_write_directly(
    shard: Shard, chunks: list[Chunk], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: str
) -> None:
    control, write = fcntl.fcntl, os.pwrite
    calls: list[int] = []

    def flags(descriptor: int, command: int, argument: int = 0) -> int:
        if refusal == "the flag" and argument & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        if command == fcntl.F_SETFL:
            time.sleep(0.05)  # the other writer goes on meanwhile
        return control(descriptor, command, argument)

    def refuse(descriptor: int, content: memoryview, offset: int) -> int:
        if control(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            calls.append(offset)
            if refusal == "the first chunk" or (refusal == "a later chunk" and len(calls) > 20):
                raise OSError(errno.EINVAL, "Invalid argument")
            if refusal == "half a chunk":
                content = content[: len(content) // 3]
        return write(descriptor, content, offset)

    monkeypatch.setattr(fcntl, "fcntl", flags)
    monkeypatch.setattr(os, "pwrite", refuse)
    output = Output(CHUNK)
    writer = ShardWriter(tmp_path, shard, output)
    assert written_by(2, writer, output, chunks)
    record = writer.finish([])
    output.close()
    assert (tmp_path / "model" / shard.file).read_bytes() == CONTENT
    assert record.sha256 == hashlib.sha256(CONTENT).hexdigest()


def test_threads_wait_while_much_is_unhashed_and_go_on_when_the_gap_closes(
    writer: ShardWriter, output: Output, chunks: list[Chunk], refused: set[int]
) -> None:
    later = [partial(hand_over, writer, output, chunk) for chunk in chunks[1:]]
    first, rest = in_threads(later[:AHEAD]), later[AHEAD:]
    assert joined(first)
    waiting = in_threads(rest)
    wait_until_waiting(waiting, refused)
    assert all(thread.is_alive() for thread in waiting)
    hand_over(writer, output, chunks[0])
    assert joined(waiting)
    assert writer.finish([]).sha256


def test_threads_wait_while_much_is_unwritten(
    writer: ShardWriter, output: Output, chunks: list[Chunk], refused: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, write = threading.Event(), os.pwrite

    def slow(*arguments: Any) -> int:
        disk.wait()
        return write(*arguments)

    monkeypatch.setattr(os, "pwrite", slow)
    done: list[Chunk] = []

    def work() -> None:
        for chunk in chunks:
            hand_over(writer, output, chunk)
            done.append(chunk)

    working = in_threads([work])
    wait_until_waiting(working, refused)
    assert working[0].is_alive()
    assert len(done) <= AHEAD
    disk.set()
    assert joined(working)
    assert writer.finish([]).sha256 == hashlib.sha256(CONTENT).hexdigest()


def test_threads_return_when_the_chunk_before_theirs_has_failed(
    writer: ShardWriter, output: Output, chunks: list[Chunk], refused: set[int], shard: Shard, tmp_path: Path
) -> None:
    waiting = in_threads([partial(hand_over, writer, output, chunk) for chunk in chunks[1:]])
    wait_until_waiting(waiting, refused)
    output.stop()
    assert joined(waiting)
    output.close()
    writer.close()
    assert not (tmp_path / "model" / shard.file).exists()


def test_a_disk_that_fails_ends_all_waiting(
    writer: ShardWriter, output: Output, chunks: list[Chunk], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pwrite", fail)
    with pytest.raises(OSError, match="Input/output error"):
        for chunk in chunks:
            hand_over(writer, output, chunk)
    with pytest.raises(OSError, match="Input/output error"):
        writer.finish([])


@given(
    header=st.integers(1, 40),
    sizes=st.lists(st.integers(0, 50), max_size=8),
    units=st.integers(1, 6),
    wide=st.booleans(),
)
def test_chunks_cover_the_header_and_every_element_once(header: int, sizes: list[int], units: int, wide: bool) -> None:
    tensors, position = [], 8 * header
    for index, size in enumerate(sizes):
        dtype = DTYPES["float64" if wide and index < 3 else "bfloat16"]
        tensors.append(OutputTensor(str(index), dtype, (size,), position, size * dtype.itemsize))
        position += tensors[-1].nbytes
    shard = Shard("model.safetensors", bytes(8 * header), tuple(tensors), position)
    chunks = list(cut(shard, 8 * units))
    assert [chunk.start for chunk in chunks] == list(range(0, position, 8 * units))
    assert b"".join(chunk.header for chunk in chunks) == shard.header
    places = {tensor.name: tensor for tensor in tensors}
    elements: list[tuple[str, int]] = []
    for chunk in chunks:
        at = chunk.start + len(chunk.header)
        for piece in chunk.pieces:
            unit, tensor = piece.unit, places[piece.unit.tensor]
            assert at == chunk.start + piece.offset == tensor.offset + unit.start * tensor.dtype.itemsize
            at += (unit.stop - unit.start) * tensor.dtype.itemsize
            elements += [(unit.tensor, index) for index in range(unit.start, unit.stop)]
        assert at == chunk.stop
    assert elements == [(str(name), index) for name, size in enumerate(sizes) for index in range(size)]
