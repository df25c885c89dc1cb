"""Contract: unpacking gives back every file bit for bit, whatever the bytes; the format is that of docs/patch.md.

A patch is never larger than zstd -3 makes the weight files by more than a percent.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import rammerge
from rammerge.checkpoints.checkpoint import open_checkpoint
from rammerge.checkpoints.digest import digest_checkpoint
from rammerge.checkpoints.patched import container, encoding
from rammerge.checkpoints.patched.blocks import BLOCK, Bytes, Mode, Stored
from rammerge.checkpoints.patched.compiled import load
from rammerge.checkpoints.patched.container import ROW
from rammerge.checkpoints.patched.decoding import Run, decode_run
from rammerge.checkpoints.patched.encoding import encode
from rammerge.checkpoints.patched.opening import open_patch
from rammerge.checkpoints.patched.place import FILE
from rammerge.numerics.dtypes import DTYPES, DType
from rammerge.patches.verifying import verify_patch
from rammerge.system.toolchain import compiler
from tests.patches.families import contents, odd_family, write
from tests.patches.oracle import WIDTHS, read_safetensors, read_tensor, unpack

# One of each width is compiled.
COMPILED = ("BOOL", "BF16", "F32", "I64")
KINDS = [dtype for dtype in DTYPES.values() if dtype.code in WIDTHS]


@st.composite
def blocks_and_bases(draw: st.DrawFn) -> tuple[DType, Bytes, Bytes | None]:
    """Draw a dtype, the bytes of a block, and those of the base's: unrelated, missing, or close."""
    dtype = draw(st.sampled_from(KINDS))
    size = draw(st.integers(1, 40)) * dtype.itemsize
    drawn = arrays.arrays(np.uint8, size)
    base = draw(drawn)
    values = draw(st.sampled_from(["any", "close", "none"]))
    if values == "none":
        return dtype, base, None
    if values == "any":
        return dtype, draw(drawn), base
    close = base.copy()
    close[draw(st.integers(0, size - 1))] ^= np.uint8(draw(st.integers(0, 255)))
    return dtype, close, base


@cache
def decoders(dtype: DType) -> list[Callable[[Run, int, memoryview], None]]:
    """Return what decodes elements of a dtype on this machine."""
    return [decode_run, load(dtype)] if dtype.code in COMPILED and compiler() is not None else [decode_run]


@given(blocks_and_bases())
@settings(max_examples=300, deadline=None)
def test_any_bytes_come_back(drawn: tuple[DType, Bytes, Bytes | None]) -> None:
    dtype, values, base = drawn
    check_block(values, base, dtype)


def check_block(values: Bytes, base: Bytes | None, dtype: DType, skipped: int = 0) -> None:
    """See that each decoder gives a block's bytes after `skipped` elements, and the documented format all of them."""
    run = stored_run(encode(values, base, dtype), len(values) // dtype.itemsize, dtype, base is not None)
    reference = b"" if base is None else base.tobytes()
    assert (
        read_tensor(run.frames.tobytes() + run.rows.tobytes(), reference, dtype.code, len(values)) == values.tobytes()
    )
    begin = skipped * dtype.itemsize
    for decode in decoders(dtype):
        found = bytearray(len(values)) if base is None else bytearray(base)
        decode(run, skipped, memoryview(found)[begin:])
        assert bytes(found)[begin:] == values.tobytes()[begin:]


def stored_run(stored: Stored, elements: int, dtype: DType, has_base: bool) -> Run:
    """Return a block as the decoders read it."""
    rows = np.array([(*stored[:3], len(stored.first), len(stored.second))], ROW)
    return Run(rows, np.array(bytearray(stored.first) + bytearray(stored.second), np.uint8), elements, dtype, has_base)


@given(data=st.data(), density=st.sampled_from([0.05, 0.2, 0.7]), most=st.sampled_from([3, 100, 30_000]))
@settings(max_examples=150, deadline=None)
def test_decoders_agree_on_damage(data: st.DataObject, density: float, most: int) -> None:
    """They give the same bytes or both refuse, and write nowhere else."""
    chances, dtype, count = np.random.default_rng(0), DTYPES["bfloat16"], 501
    base = chances.integers(0, 1 << 16, count, np.uint16)
    steps = (chances.integers(1, most + 1, count) * (chances.random(count) < density)).astype(np.uint16)
    run = stored_run(encode((base + steps).view(np.uint8), base.view(np.uint8), dtype), count, dtype, True)
    where = data.draw(st.integers(0, len(run.frames) - 1))
    run.frames[where] ^= np.uint8(data.draw(st.integers(1, 255)))
    run.rows["planes"] = data.draw(st.sampled_from([int(run.rows["planes"][0]), 0, 1, 2]))
    run.rows["content"] += np.uint32(data.draw(st.sampled_from([0, 0, 1, 2**32 - 1])))
    assume(container._is_possible(run.rows, np.array([len(run.frames)]), dtype.itemsize))  # else it is not opened
    found = []
    for decode in decoders(dtype):
        memory = bytearray(base.tobytes() + b"untouched")
        try:
            decode(run, 0, memoryview(memory)[: 2 * count])
            found.append(bytes(memory))
        except (ValueError, IndexError):
            found.append(b"")
        assert memory.endswith(b"untouched")
    assert found == found[:1] * len(found)


@pytest.mark.parametrize("code", ["BF16", "F16", "F32", "F64"])
def test_neighbouring_floats_are_one_step_apart(code: str) -> None:
    """Of one to four steps in any direction, also across zero, half a byte is enough."""
    dtype = next(dtype for dtype in KINDS if dtype.code == code)
    chances = np.random.default_rng(0)
    near_zero = chances.integers(0, 3, 1000).astype(f"<u{dtype.itemsize}")
    sign = np.array(1 << (8 * dtype.itemsize - 1), near_zero.dtype)
    one, other = near_zero | sign * chances.integers(0, 2, 1000).astype(near_zero.dtype), near_zero[::-1].copy()
    stored = encoding._encode_steps(one.view(np.uint8), other.view(np.uint8), dtype)
    assert (stored.mode, stored.planes) == (Mode.STEPS, 0)


def test_every_file_of_an_odd_agent_comes_back(tmp_path: Path) -> None:
    base, agent = odd_family(tmp_path)
    report = rammerge.pack(base, agent, tmp_path / "patch")
    assert report.left_out == ("optimizer.pt",)
    assert rammerge.unpack(base, tmp_path / "patch", tmp_path / "out") == tmp_path / "out"
    expected = contents(agent)
    del expected["optimizer.pt"]
    assert contents(tmp_path / "out") == expected
    assert verify_patch(tmp_path / "patch", open_checkpoint(base)).keys() == expected.keys()


def test_the_format_is_the_documented_one(tmp_path: Path) -> None:
    base, agent = odd_family(tmp_path)
    rammerge.pack(base, agent, tmp_path / "patch")
    _, tensors = read_safetensors((base / "model.safetensors").read_bytes())
    header, _ = read_safetensors((agent / "model-00001-of-00002.safetensors").read_bytes())
    of_other_dtypes = {"master.weight"}  # these have no reference
    assert of_other_dtypes <= header.keys()
    known = {name: content for name, content in tensors.items() if name not in of_other_dtypes}
    for name, content in unpack(tmp_path / "patch" / FILE, known):
        assert content == (agent / name).read_bytes(), name


def test_a_head_that_repeats_the_embedding_is_relative_to_the_base_s(tmp_path: Path) -> None:
    base, agent = odd_family(tmp_path)
    rammerge.pack(base, agent, tmp_path / "patch")
    _, stored = read_safetensors((tmp_path / "patch" / FILE).read_bytes())
    assert stored["tensor:lm_head.weight"] == stored["tensor:embed_tokens.weight"]


def test_a_patch_has_the_digest_of_its_agent(tmp_path: Path) -> None:
    base, agent = odd_family(tmp_path)
    rammerge.pack(base, agent, tmp_path / "patch")
    patched = open_patch(tmp_path / "patch", open_checkpoint(write_like(base, tmp_path / "copy")))
    assert digest_checkpoint(patched) == digest_checkpoint(open_checkpoint(agent))


def write_like(directory: Path, copy: Path) -> Path:
    """Copy a model to another path: a base is known by its content."""
    copy.mkdir()
    for name, content in contents(directory).items():
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_bytes(content)
    return copy


@pytest.mark.parametrize("kind", ["unrelated", "zeros", "text"])
def test_an_agent_unlike_its_base_is_no_larger_than_under_zstd(tmp_path: Path, kind: str) -> None:
    draw = torch.Generator().manual_seed(0)
    base = torch.randn((512, 1024), generator=draw).to(torch.bfloat16)
    agent = {
        "unrelated": torch.randn((512, 1024), generator=draw).to(torch.bfloat16),
        "zeros": torch.zeros((512, 1024), dtype=torch.bfloat16),
        "text": torch.randint(97, 110, (512, 1024), generator=draw).to(torch.bfloat16),
    }[kind]
    paths = [
        write(tmp_path / name, {"model.safetensors": {"weight": values}})
        for name, values in (("base", base), ("agent", agent))
    ]
    report = rammerge.pack(paths[0], paths[1], tmp_path / "patch")
    plain = pyarrow.Codec("zstd", compression_level=3).compress((paths[1] / "model.safetensors").read_bytes())
    fixed = 2000  # the container's header, and a few bytes a block
    assert report.nbytes <= 1.01 * len(plain) + fixed


@pytest.mark.parametrize("density", [0.0001, 0.003, 0.12, 0.13, 0.6])
@pytest.mark.parametrize("steps", [3, 8, 200, 20_000])
def test_whole_blocks_come_back_at_any_density(density: float, steps: int) -> None:
    """Rare changes have gaps of several bytes; many steps have planes."""
    chances = np.random.default_rng(0)
    base = chances.integers(0, 1 << 16, BLOCK, np.uint16)
    moved = chances.integers(-steps, steps + 1, BLOCK) * (chances.random(BLOCK) < density)
    values = (base + moved.astype(np.uint16)).view(np.uint8)
    check_block(values, base.view(np.uint8), DTYPES["bfloat16"], skipped=int(chances.integers(0, BLOCK)))
