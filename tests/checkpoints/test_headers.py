"""Contract: headers that the reference implementation writes are read exactly.

Anything else, however built, is an InputError. It comes soon, and no memory is allocated for a size that a file only
claims.
"""

import json
import os
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from rammerge.checkpoints.headers import read_header
from rammerge.errors import InputError
from rammerge.numerics.dtypes import DTYPES, DType, from_torch
from tests.fixtures.waiting import no_hanging


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_dtypes_are_as_torch_has_them(dtype: DType) -> None:
    found = dtype.torch_dtype
    assert (dtype.itemsize, dtype.is_floating_point) == (found.itemsize, found.is_floating_point)
    assert from_torch(found) is dtype


TORN = settings(max_examples=300)


def write(path: Path, header: Any, data: bytes = b"", *, claimed: int | None = None) -> Path:
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(content) if claimed is None else claimed) + content + data)
    return path


def entry(dtype: str = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@given(
    st.dictionaries(
        st.text(max_size=8).filter(lambda name: name != "__metadata__"),
        st.tuples(st.sampled_from(sorted(DTYPES.values(), key=str)), st.lists(st.integers(0, 4), max_size=3)),
        min_size=1,
        max_size=6,
    )
)
@settings(max_examples=60)
def test_reads_what_safetensors_wrote(tmp_path: Path, layout: dict[str, tuple[DType, list[int]]]) -> None:
    file = tmp_path / "model.safetensors"
    sizes = {name: torch.Size(shape).numel() * dtype.itemsize for name, (dtype, shape) in layout.items()}
    tensors = {
        name: torch.randint(0, 2, (sizes[name],), dtype=torch.uint8).view(dtype.torch_dtype).reshape(shape)
        for name, (dtype, shape) in layout.items()
    }
    save_file(tensors, file, metadata={"format": "pt"})

    found = read_header(file)

    assert found.keys() == layout.keys()
    content = file.read_bytes()
    for name, (dtype, shape) in layout.items():
        info = found[name]
        assert (info.name, info.dtype, info.shape, info.file) == (name, dtype, tuple(shape), file)
        assert info.numel == torch.Size(shape).numel()
        stored = tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes()
        assert content[info.offset : info.offset + info.nbytes] == stored


def accepted_by_reference(file: Path) -> bool:
    try:
        with safe_open(file, framework="pt") as opened:
            return all(opened.get_tensor(name) is not None for name in opened.keys())  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, KeyError):
        return False


@given(content=st.binary(max_size=200))
@TORN
def test_random_bytes_are_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(InputError):
        read_header(file)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
SIZES = st.integers(0, 16) | st.sampled_from([-1, 2**31, 2**32, 2**62, 2**63, 2**64, 10**40, True, 1.0, None])
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([*(dtype.code for dtype in DTYPES.values()), "F4", "F6_E2M3", "I128", "", None, 3]),
        "shape": st.lists(SIZES, max_size=4) | JSON,
        "data_offsets": st.lists(SIZES, min_size=2, max_size=2) | JSON,
    }
)


@given(
    header=st.dictionaries(st.text(max_size=3) | st.just("__metadata__"), ENTRIES | JSON, max_size=3) | JSON,
    data=st.binary(max_size=32),
    padding=st.integers(0, 3),
)
@TORN
def test_generated_headers_are_refused_or_valid(tmp_path: Path, header: Any, data: bytes, padding: int) -> None:
    file = tmp_path / "model.safetensors"
    write(file, json.dumps(header).encode() + b" " * padding, data)
    check_against_reference(file)


@given(position=st.integers(0, 300), replacement=st.binary(min_size=1, max_size=4), cut=st.integers(0, 40))
@TORN
def test_mutated_files_are_refused_or_valid(tmp_path: Path, position: int, replacement: bytes, cut: int) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(2, 3), "b": torch.ones(4, dtype=torch.bfloat16), "c": torch.ones(())}, file)
    content = bytearray(file.read_bytes())
    position %= len(content)
    content[position : position + len(replacement)] = replacement
    file.write_bytes(content[: len(content) - cut])
    check_against_reference(file)


def check_against_reference(file: Path) -> None:
    """The reference implementation accepts every file that is accepted here, and reads the same from it."""
    try:
        found = read_header(file)
    except InputError as refusal:
        assert "\n" not in str(refusal)
        assert len(str(refusal)) < 1000
        return
    assert accepted_by_reference(file)
    reference = load_file(file)
    assert {name: (info.dtype.torch_dtype, info.shape) for name, info in found.items()} == {
        name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in reference.items()
    }


@pytest.mark.parametrize(
    ("header", "data", "says"),
    [
        ({"a": entry(offsets=(0, 8)), "b": entry(offsets=(4, 12))}, bytes(12), "overlaps"),
        ({"a": entry(offsets=(0, 8)), "b": entry(offsets=(12, 20))}, bytes(20), "hole"),
        ({"a": entry()}, bytes(9), "after its last tensor"),
        ({"a": entry()}, bytes(7), "truncated"),
        ({"a": entry(offsets=(8, 0))}, bytes(8), "before it begins"),
        ({"a": entry(shape=(3,))}, bytes(8), "dtype and shape"),
        ({"a": entry(shape=(-2,))}, bytes(8), "impossible shape"),
        ({"a": entry(shape=(True, 2))}, bytes(8), "impossible shape"),
        ({"a": entry(shape=(2**40, 2**40, 0), offsets=(0, 0))}, b"", "64 bits"),
        ({"a": entry(shape=[1] * 65, offsets=(0, 4))}, bytes(4), "impossible shape"),
        ({"a": entry(dtype="F4", shape=(16,))}, bytes(8), "quantized"),
        ({"a": entry(dtype="F33")}, bytes(8), "unknown dtype"),
        ({"a": {**entry(), "extra": 1}}, bytes(8), "something other"),
        ({"\ud800": entry()}, bytes(8), "not text"),
        ({"__metadata__": {"n": 1}}, b"", "map of strings"),
        (b'{"a": 1, "a": 1}', b"", "occurs twice"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", b"", "nested too deeply"),
        (b'{"a": ' + b"9" * 10_000 + b"}", b"", "JSON"),
        (b"[1, 2]", b"", "does not start with a JSON header"),
        (b'{"a": "\xff"}', b"", "JSON"),
    ],
)
def test_each_fault_is_named(tmp_path: Path, header: Any, data: bytes, says: str) -> None:
    with pytest.raises(InputError, match=says):
        read_header(write(tmp_path / "model.safetensors", header, data))


def test_a_lying_size_allocates_nothing(tmp_path: Path) -> None:
    """8 TB claimed by the header's length, by an offset, or by the size of a sparse file."""
    length = write(tmp_path / "length", {"a": entry()}, bytes(8), claimed=8 * 10**12)
    below_limit = write(tmp_path / "below", {"a": entry()}, bytes(8), claimed=99_000_000)
    offset = write(tmp_path / "offset", {"a": entry(shape=(2 * 10**12,), offsets=(0, 8 * 10**12))}, bytes(8))
    sparse = write(tmp_path / "sparse", {"a": entry()}, bytes(8), claimed=2**63)
    os.truncate(sparse, 8 * 10**12)
    tracemalloc.start()
    try:
        for file in (length, below_limit, offset, sparse):
            with pytest.raises(InputError):
                read_header(file)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_a_huge_sparse_tensor_is_only_described(tmp_path: Path) -> None:
    file = write(tmp_path / "model.safetensors", {"a": entry(shape=(10**12,), offsets=(0, 4 * 10**12))})
    os.truncate(file, file.stat().st_size + 4 * 10**12)
    assert read_header(file)["a"].nbytes == 4 * 10**12


@pytest.mark.parametrize("make", ["fifo", "loop", "directory", "device", "dangling", "missing"])
def test_special_files_are_refused_and_not_waited_for(tmp_path: Path, make: str) -> None:
    file = tmp_path / "model.safetensors"
    match make:
        case "fifo":
            os.mkfifo(file)
        case "loop":
            file.symlink_to(file)
        case "directory":
            file.mkdir()
        case "device":
            file.symlink_to("/dev/zero")
        case "dangling":
            file.symlink_to(tmp_path / "nowhere")
    with no_hanging(), pytest.raises(InputError, match=r"model\.safetensors"):
        read_header(file)


def test_a_fifo_that_takes_the_name_after_the_check_does_not_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fifo, regular = tmp_path / "fifo", tmp_path / "regular"
    os.mkfifo(fifo)
    regular.write_bytes(b"x")
    harmless = regular.stat()
    monkeypatch.setattr(Path, "stat", lambda *_, **__: harmless)
    with no_hanging(), pytest.raises(InputError, match="fifo"):
        read_header(fifo)


def test_head_rows_is_a_prefix_of_the_same_bytes(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    tensor = torch.arange(12, dtype=torch.float32).reshape(4, 3)
    save_file({"a": tensor, "empty": torch.zeros(4, 0), "scalar": torch.tensor(1.0)}, file)
    tensors = read_header(file)

    head = tensors["a"].head_rows(2)

    stored = file.read_bytes()[head.offset : head.offset + head.nbytes]
    assert head.shape == (2, 3)
    assert torch.equal(torch.frombuffer(bytearray(stored), dtype=torch.float32).reshape(2, 3), tensor[:2])
    assert tensors["empty"].head_rows(1).nbytes == 0
    for wrong in (tensors["scalar"].head_rows, tensors["a"].head_rows):
        with pytest.raises(ValueError, match="rows"):
            wrong(5)
