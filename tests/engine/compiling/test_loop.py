"""Contract: compiled code reads its own inputs and gives the eager form's counts and bytes, whatever the tile.

A file that fails under it is named.
"""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from rammerge.engine.blocks import Numbers
from rammerge.engine.buffers import address, as_tensor, pages
from rammerge.engine.compiling import cache
from rammerge.engine.compiling.loop import Form, FormCall, Source, run_tiles
from rammerge.engine.compiling.signature import Signature
from rammerge.engine.histogram import Histogram
from rammerge.engine.options import MergeOptions
from rammerge.engine.passes.merge_block import MergeBlock
from rammerge.errors import InputError, RammergeError
from rammerge.numerics.dtypes import DTYPES, from_torch
from rammerge.rules import resolve
from rammerge.system.toolchain import compiler
from tests.engine.models import merge, merged_without_torch, weight_bytes, write_family
from tests.fixtures.compiled import BuiltHere

pytestmark = pytest.mark.skipif(compiler() is None, reason="compiles C++")

ELEMENTS = 50_000
# The memory to which sources are read, which they do not own.
_kept: list[memoryview] = []
BFLOAT16, FLOAT32 = DTYPES["bfloat16"], DTYPES["float32"]
RULE = resolve("ties").bind(["one", "other"])
SIGNATURE = Signature(MergeBlock.of(RULE, "bfloat16", "nearest"), BFLOAT16, (FLOAT32, BFLOAT16), 4)
MAGNITUDES = Signature(RULE.passes[0].function(2), BFLOAT16, (FLOAT32, BFLOAT16), 4)


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture(scope="module")
def loops(kernels: Path) -> list[Form]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAMMERGE_HOME", str(kernels))
        patch.setattr(cache, "Build", BuiltHere)
        for build in [cache.start_build(signature) for signature in (SIGNATURE, MAGNITUDES)]:
            build.wait()
        runners = [cache.load(signature) for signature in (SIGNATURE, MAGNITUDES)]
    made = [runner for runner in runners if isinstance(runner, Form)]
    assert made == runners
    return made


@pytest.fixture
def loop(loops: list[Form]) -> Form:
    return loops[0]


@pytest.fixture
def inputs() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    base = torch.randn(ELEMENTS, generator=generator).bfloat16()
    changed = torch.rand(ELEMENTS, generator=generator) < 0.3
    return [base, base.float() + changed * 1e-2, base]


def sources(directory: Path, inputs: list[torch.Tensor], flags: int = os.O_RDONLY) -> list[Source]:
    """Write each input to a file of its own, a few bytes in, and open it."""
    made = []
    for index, values in enumerate(inputs):
        path = directory / f"input{index}"
        path.write_bytes(b"head" + values.view(torch.uint8).numpy().tobytes())
        dtype = from_torch(values.dtype)
        assert dtype is not None
        _kept.append(pages(values.nbytes))
        made.append(Source(dtype, address(_kept[-1]), path, os.open(path, flags), 4))
    return made


def numbers() -> Numbers:
    scale, trimmed_below, drop_rate, mean = [1.0] * 2, [1e-3] * 2, [0.0] * 2, [1.0] * 2
    return Numbers([scale, trimmed_below, drop_rate, mean], 1e-5, [0, 0, 0], 0)


@pytest.mark.parametrize("tile", [ELEMENTS, ELEMENTS - 1, 4096, 7777])
@pytest.mark.parametrize("elements", [ELEMENTS, 1024, 1023, 17, 16, 1])
def test_tiles_change_nothing(loop: Form, inputs: list[torch.Tensor], tmp_path: Path, tile: int, elements: int) -> None:
    base, *agents = [values[:elements] for values in inputs]
    (merged,), counts = SIGNATURE.function(base, agents, numbers().tensors())
    result = pages(ELEMENTS * 2)
    call = FormCall(loop, numbers(), len(counts), [result])
    run_tiles(sources(tmp_path, inputs), [call], 0, elements, tile)
    assert torch.equal(as_tensor(result, BFLOAT16)[:elements].view(torch.int16), merged.view(torch.int16))
    assert not any(result[elements * 2 :])  # nothing is written after the result
    assert call.counts == counts.tolist()


@pytest.mark.parametrize("tile", [ELEMENTS, ELEMENTS - 1, 7777])
@pytest.mark.parametrize(("first", "bins", "shift"), [(0, 1 << 16, 15), (0x3C23 << 16, 1 << 15, 0), (0, 1 << 15, 0)])
def test_magnitudes_are_counted_as_eager_code_does(
    loops: list[Form], inputs: list[torch.Tensor], tmp_path: Path, tile: int, first: int, bins: int, shift: int
) -> None:
    eager, found = (Histogram.empty([first, 0], bins, shift) for _ in range(2))
    magnitudes, _ = MAGNITUDES.function(inputs[0], inputs[1:], numbers().tensors())
    eager.add(magnitudes)
    scratch = [pages(tile * 4) for _ in magnitudes]
    for _ in range(2):
        call = FormCall(loops[1], numbers(), 1, scratch, found)
        run_tiles(sources(tmp_path, inputs), [call], 0, ELEMENTS, tile)
    assert np.array_equal(found.counts(), 2 * eager.counts())
    assert found.lanes.sum() == 2 * 2 * ELEMENTS
    assert found.counts()[1].sum() > 0
    for own, other, seen, expected in zip(found.others, eager.others, found.filled, eager.filled, strict=True):
        assert seen == (2 * expected if expected >= 0 else -1)
        if expected >= 0:
            assert np.array_equal(np.sort(own[:seen]), np.sort(np.tile(other[:expected], 2)))


@pytest.mark.usefixtures("loops")
def test_ties_needs_no_torch(
    inputs: list[torch.Tensor], tmp_path: Path, kernels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, changed, same = inputs
    family = write_family(tmp_path, {"w": base}, [{"w": changed}, {"w": same.flip(0)}])
    eager = merge(*family, resolve("ties"), tmp_path / "eager", MergeOptions("bfloat16", compile="never"))
    monkeypatch.setenv("RAMMERGE_HOME", str(kernels))
    assert merged_without_torch(family, "ties", tmp_path / "alone") == weight_bytes(eager.path)


def test_a_file_that_became_shorter_is_named(loop: Form, inputs: list[torch.Tensor], tmp_path: Path) -> None:
    opened = sources(tmp_path, inputs)
    os.truncate(opened[1].file, 4 + ELEMENTS)
    with pytest.raises(RammergeError, match=r"input1 became shorter while it was read; run again") as refused:
        run_tiles(opened, [FormCall(loop, numbers(), 9, [pages(ELEMENTS * 2)])], 0, ELEMENTS, 4096)
    assert not isinstance(refused.value, InputError)  # which would discard the finished shards


def test_a_file_that_cannot_be_read_is_named(loop: Form, inputs: list[torch.Tensor], tmp_path: Path) -> None:
    opened = [*sources(tmp_path, inputs)[:2], sources(tmp_path, inputs, os.O_WRONLY)[2]]
    with pytest.raises(OSError) as refused:
        run_tiles(opened, [FormCall(loop, numbers(), 9, [pages(ELEMENTS * 2)])], 0, ELEMENTS, 4096)
    assert (refused.value.errno, refused.value.filename) == (errno.EBADF, str(opened[2].file))


@pytest.mark.usefixtures("loop")
def test_a_form_that_does_not_load_is_made_again() -> None:
    path = SIGNATURE.path()
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"not a library")
    assert cache.load(SIGNATURE) is None
    assert not path.exists()
