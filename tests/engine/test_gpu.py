"""Contract: on a GPU no more blocks than lanes are at work, each is done before its memory is used again, and all fit.

Streams are stand-ins here; tests/cuda merges on a GPU.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rammerge.engine import gpu, memory
from rammerge.engine.gpu import Lanes, Room
from rammerge.engine.memory import Needs, plan_memory
from rammerge.engine.options import MergeOptions
from rammerge.errors import InputError
from rammerge.system.threads import work_through
from tests.engine.models import sparse_family, write_family


@dataclass
class Stream:
    """A stream that notes what was asked of it, and does all of it at the end."""

    asked: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)

    def synchronize(self) -> None:
        """Do everything."""
        self.done, self.asked = [*self.done, *self.asked], []


own = threading.local()


@contextmanager
def used(stream: Stream) -> Iterator[None]:
    own.stream = stream
    yield
    own.stream = None


def test_each_thread_has_a_stream_of_its_own_and_leaves_it_done() -> None:
    streams = [Stream(), Stream()]
    lanes, together = Lanes(streams, used), threading.Barrier(2)

    def compute(block: str) -> None:
        with lanes.one():
            together.wait(60)  # two lanes are used at the same time, and no third one
            own.stream.asked.append(block)
            assert own.stream.asked == [block]
        assert own.stream is None

    work_through([f"block {number}" for number in range(8)], compute, 4)
    assert sorted(block for stream in streams for block in stream.done) == [f"block {number}" for number in range(8)]
    assert not any(stream.asked for stream in streams)


def test_a_stream_is_done_and_free_after_an_error() -> None:
    stream = Stream()
    lanes = Lanes([stream], used)
    with pytest.raises(InputError), lanes.one():
        stream.asked.append("block")
        raise InputError("not finite")
    assert stream.done == ["block"]
    with lanes.one():
        assert own.stream is stream


def test_blocks_fit_into_the_gpu(tmp_path: Path) -> None:
    base, agents = write_family(tmp_path, *sparse_family({"w": (3000, 2000)}, [0.1, 0.2]))
    checkpoints = (base, *agents.values())

    def planned(mebibytes: int) -> memory.MemoryPlan:
        room = Room("cuda:0", mebibytes << 20)
        return plan_memory(Needs(checkpoints, MergeOptions(memory=1 << 40), 1, 0, 1, room, gpu_element=200))

    assert planned(1 << 20).block == gpu.BLOCK
    for limit in (20, 100, 500):
        found = planned(limit)
        whole = gpu.LANES * found.tile * (200 + 3 * 2)
        assert found.tile == found.block
        assert (limit << 20) / 2 < whole <= limit << 20
    message = r"--device-memory 1MiB of cuda:0 is too little: this merge needs (\d+)MiB there"
    with pytest.raises(InputError, match=message) as refused:
        planned(1)
    enough = int(str(refused.value).split("needs ")[1].split("MiB")[0])
    assert planned(enough).block == memory.MIN_BLOCK
