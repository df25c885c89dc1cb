"""Contract of parts and files: parts fill their tensor exactly, and what is written is read back."""

import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rammerge.checkpoints.checkpoint import open_checkpoint
from rammerge.checkpoints.forms.parts import Part, assemble, fault
from rammerge.checkpoints.forms.tensors import LazyTensor, constant, write_model
from tests.fixtures.states import State, equal


def cuts(size: int) -> Iterator[tuple[int, int]]:
    yield from ((begin, min(2, size - begin)) for begin in range(0, size, 2))


def test_parts_must_fill_the_tensor_exactly() -> None:
    whole = torch.arange(35.0).reshape(5, 7)

    def part(row: int, column: int, height: int, width: int) -> Part:
        return Part((row, column), (height, width), lambda: whole[row : row + height, column : column + width])

    chunks = [part(r, c, rows, columns) for r, rows in cuts(5) for c, columns in cuts(7)]
    assert fault((5, 7), chunks) is None
    assert torch.equal(assemble(torch.float32, (5, 7), chunks), whole)
    assert fault((5, 7), chunks[1:]) == "its parts do not fill it"
    assert fault((5, 7), [*chunks[1:], Part((2, 2), (2, 2), chunks[0].read)]) == "two of its parts overlap"
    assert fault((5, 7), [Part((0, 0), (5, 8), chunks[0].read)]) == "a part lies outside the tensor"
    assert fault((5, 7), [Part((-1, 0), (5, 7), chunks[0].read)]) == "a part lies outside the tensor"
    assert fault((5, 7), [Part((0,), (35,), chunks[0].read)]) == "a part has a different number of dimensions"
    assert fault((), [Part((), (), lambda: torch.tensor(1.0))]) is None
    assert fault((), [Part((), (), chunks[0].read)] * 2) == "its parts do not fill it"


@pytest.mark.parametrize("shard_bytes", [1, 100, 1000, 10**9])
def test_written_shards_are_read_back(tmp_path: Path, shard_bytes: int) -> None:
    state = {
        "scalar": torch.tensor(1.5),
        "empty": torch.zeros(0, 3),
        "half": torch.randn(5).bfloat16(),
        "wide": torch.randn(3, 7, 2, dtype=torch.float64).transpose(0, 1),
        "ids": torch.arange(9),
        "mask": torch.tensor([True, False, True]),
    }
    write_model(tmp_path, {name: constant(tensor) for name, tensor in state.items()}, shard_bytes=shard_bytes)
    (tmp_path / "config.json").write_text("{}")
    checkpoint = open_checkpoint(tmp_path)
    read: State = {}
    for file in checkpoint.weight_files:
        read |= load_file(file)
    assert equal(read, state)
    assert len(checkpoint.weight_files) == 1 or shard_bytes < 1000


def test_writing_holds_one_tensor_at_a_time(tmp_path: Path) -> None:
    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    most = 0

    def read() -> torch.Tensor:
        nonlocal most
        tensor = torch.ones(1000)
        alive.add(tensor)
        most = max(most, len(alive))
        return tensor

    write_model(tmp_path, {f"t{number}": LazyTensor(torch.float32, (1000,), read) for number in range(9)})
    assert most == 1
