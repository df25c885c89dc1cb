"""Contract: on a GPU no more blocks than lanes are at work, each is done before its memory is used again, and all fit.

The way of the data changes no byte. Streams are stand-ins here, and the GPU is this machine's memory under a different
name; tests/cuda merges on a GPU.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from rammerge.engine import buffers, gpu, memory, session
from rammerge.engine.blocks import Arguments
from rammerge.engine.buffers import pages
from rammerge.engine.gpu import Lanes, Room
from rammerge.engine.memory import Needs, plan_memory
from rammerge.engine.options import MergeOptions
from rammerge.engine.passes.merge_block import block_function
from rammerge.errors import InputError
from rammerge.rules import resolve
from rammerge.system.threads import work_through
from tests.engine.models import DATA_FREE, merge, read, sparse_family, write_family


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


def test_a_thread_goes_on_in_its_lane() -> None:
    stream = Stream()
    lanes = Lanes([stream], used)
    with lanes.one():
        stream.asked.append("matrix")
        with lanes.one():
            stream.asked.append("block")
        assert stream.done == ["matrix", "block"]
    with lanes.one():
        assert own.stream is stream


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
    base, agents = write_family(tmp_path, *sparse_family({"w": (1200, 1000)}, [0.1, 0.2]))
    checkpoints = (base, *agents.values())

    def planned(mebibytes: int) -> memory.MemoryPlan:
        room = Room("cuda:0", mebibytes << 20)
        return plan_memory(Needs(checkpoints, MergeOptions(memory=1 << 40), 1, 0, 1, room, gpu_element=200))

    assert planned(1 << 20).block == 1 << 21  # the whole tensor
    for limit in (15, 60, 250):
        found = planned(limit)
        whole = gpu.LANES * found.tile * (200 + 3 * 2)
        assert found.tile == found.block
        assert (limit << 20) / 2 < whole <= limit << 20
    message = r"--device-memory 1MiB of cuda:0 is too little: this merge needs (\d+)MiB there"
    with pytest.raises(InputError, match=message) as refused:
        planned(1)
    enough = int(str(refused.value).split("needs ")[1].split("MiB")[0])
    assert planned(enough).block == memory.MIN_BLOCK


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take this machine's memory for a GPU's."""
    monkeypatch.setattr(session, "check_device", lambda name: "cpu:0" if name == "cuda" else name)
    monkeypatch.setattr(Lanes, "of", classmethod(lambda cls, _: cls([Stream()] * gpu.LANES, used)))
    monkeypatch.setattr(Room, "of", classmethod(lambda cls, _, device: cls(device, 1 << 30)))
    for module in (buffers, session):
        monkeypatch.setattr(module, "page_locked", pages)
    monkeypatch.setattr(gpu, "BLOCK", memory.MIN_BLOCK)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("method", ["ram_plus", "ties", "della", "awd", "iso_c", "tsv_m", "resmerge"])
def test_the_way_over_a_gpu_changes_no_byte(tmp_path: Path, method: str) -> None:
    shapes = {"a.q_proj": (120, 300), "b.q_proj": (300, 70), "norm": (50,), "one": ()}
    models = write_family(tmp_path, *sparse_family(shapes, [0.1, 0.6]))
    expected, found = (
        merge(
            *models,
            resolve(method),
            tmp_path / device,
            MergeOptions("bfloat16", "stochastic", compile="never", threads=3, shard_size=60_000, device=device),
        )
        for device in ("cpu", "cuda")
    )
    wanted = read(expected.path)
    assert all(torch.equal(wanted[name], values) for name, values in read(found.path).items())
    assert found.manifest.survival == expected.manifest.survival


@pytest.mark.usefixtures("stand_in")
def test_a_matrix_that_does_not_fit_is_named(tmp_path: Path) -> None:
    models = write_family(tmp_path, *sparse_family({"large": (900, 1000)}, [0.5, 0.5]))
    too_little = Room("cpu:0", 1 << 20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Room, "of", classmethod(lambda *_: too_little))
        with pytest.raises(
            InputError, match=r"--device-memory 1MiB .* too little: 'large' \(900 x 1000\) needs \d+MiB"
        ):
            merge(*models, resolve("tsv_m"), tmp_path / "out", MergeOptions(device="cuda", compile="never"))


class Divisions(TorchFunctionMode):
    """Refuses to divide by a number: a GPU multiplies by its reciprocal instead, which rounds differently."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in ("__truediv__", "div", "divide", "true_divide"):
            assert all(isinstance(each, torch.Tensor) for each in args[:2]), "divide by a tensor instead"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("method", DATA_FREE)
def test_no_formula_divides_by_a_number(method: str) -> None:
    rule = resolve(method).bind(["a", "b", "c"])
    base, *agents = torch.rand(4, 24).unbind()
    numbers = torch.rand(rule.height, 3)
    arguments = Arguments(numbers, torch.tensor(1e-5), torch.arange(4), torch.tensor(0), row=8)
    functions = [block_function(rule, dtype, "stochastic") for dtype in ("bfloat16", "float16")]
    with Divisions():
        for function in (*functions, *(each.function(3) for each in rule.passes)):
            function(base, [*agents, base] if rule.matrices else agents, arguments)
