"""Making a compiled form: translate a block function to C++, compile it, and see that it gives the eager form's bytes.

Run as a process of its own by `rammerge.engine.compiling.cache`.
"""

import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from rammerge.engine.blocks import Numbers
from rammerge.engine.buffers import address, as_tensor, pages
from rammerge.engine.compiling.loop import Form, FormCall, Source, run_tiles, scratch_bytes
from rammerge.engine.compiling.recording import record
from rammerge.engine.compiling.signature import Signature
from rammerge.engine.compiling.source import source
from rammerge.engine.sums import GRAIN, GrainSums
from rammerge.errors import RammergeError
from rammerge.numerics.dtypes import from_torch
from rammerge.system.locks import locked
from rammerge.system.toolchain import BUILD_SECONDS, compile_library

# No product is fused with a sum, and integers wrap around: as in torch.
_FLAGS = ("-O2", "-march=native", "-std=c++17", "-ffp-contract=off", "-fwrapv", "-shared", "-fPIC", "-w")
# A prime, which no number of agents or rows is.
_RECORDED_ELEMENTS = 4099
# Tiles of whole grains, and a last one of two elements.
_CHECKED_ELEMENTS, _CHECKED_TILE = 2 * GRAIN + 2, GRAIN
# Two tiles of whole rows, of which not all elements are wanted.
_CHECKED_ROW, _CHECKED_ROWS = 10, 1639
_WANTED = slice(3, _CHECKED_ELEMENTS - 4)
# Zeros, the smallest numbers of float32 and float16 and others that these round, and large ones whose sums are finite.
_EDGES = torch.tensor([0.0, -0.0, 1e-45, -3e-39, 1.2e-38, 6e-8, -5e-5, 6.2e-5, 1e-5, 1.0, -1.00390625, 3.0, 1e2, -1e2])


def build(signature: Signature, path: Path) -> None:
    """Put the compiled form at `path`, whole or not at all.

    Raises:
        RammergeError: the function has none, it does not compile, or its bytes differ from the eager form's.
    """
    base, agents, numbers = _sample(signature, _RECORDED_ELEMENTS)
    text = source(record(signature.run, base, agents, numbers.tensors()))
    here = Path(__file__).parent
    arguments = [*_FLAGS, f"-I{here}", "-x", "c++", "-", str(here / "tiles.cpp")]
    compile_library(path, arguments, lambda made: check(signature, Form(made, signature.results())), text)


def _sample(signature: Signature, length: int) -> tuple[Tensor, list[Tensor], Numbers]:
    """Return inputs of a function: weights that agents changed a little, and among them numbers at the edges.

    For another length all numbers are different. So code into which a number of its sample was built fails on another.
    """
    generator = torch.Generator().manual_seed(0)

    def drawn(values: Tensor, dtype: torch.dtype) -> Tensor:
        edge = _EDGES[torch.randint(len(_EDGES), (length,), generator=generator)]
        return torch.where(torch.rand(length, generator=generator) < 0.2, edge, values).to(dtype)

    base = drawn(torch.randn(length, generator=generator) * 0.02, signature.base.torch_dtype)
    agents = []
    for dtype in signature.agents:
        changed = torch.rand(length, generator=generator) < 0.4
        step = torch.randn(length, generator=generator) * 2e-4
        agents.append(drawn(base.float() + changed * step, dtype.torch_dtype))
    count = signature.merged
    # Thresholds and rates differ by row and agent, so that a row read for another one shows.
    coefficients = (torch.rand(signature.rows, count, generator=generator) * 0.9 + 0.05).tolist()
    threshold = 1e-5 * (0.5 + torch.rand((), generator=generator).item())
    seeds = torch.randint(2**62, (1 + count,), generator=generator).tolist()
    return base, agents, Numbers(coefficients, threshold, seeds, 2**32 - length // 2)


def check(signature: Signature, form: Form) -> None:
    """Check that the compiled form gives the eager form's bytes and counts on a sample.

    Raises:
        RammergeError: it does not.
    """
    length, dtypes = _CHECKED_ELEMENTS, signature.results()
    kept = [dtype for dtype in dtypes if dtype.name != "float64"]
    base, agents, numbers = _sample(signature, length)
    row, tile, wanted = 1, _CHECKED_TILE, slice(0, length)
    if signature.by_rows:
        row, tile, wanted = _CHECKED_ROW, _CHECKED_ROW * _CHECKED_ROWS, _WANTED
    expected, counts = signature.run(base, agents, numbers.tensors().at(0, row, wanted if signature.by_rows else None))
    memories = [pages(length * dtype.itemsize) for dtype in kept]
    found_sums, sums = (GrainSums.empty(len(dtypes) - len(kept), length) for _ in range(2))
    scratch = pages(scratch_bytes(form.ranked, tile, row)) if form.ranked else None
    call = FormCall(form, numbers, len(counts), memories, sums=found_sums, scratch=scratch, row=row)
    run_on([base, *agents], call, numbers.start, tile, wanted)
    sums.add(expected[len(kept) :])
    made = wanted.stop - wanted.start
    results = [as_tensor(memory, dtype)[:made] for memory, dtype in zip(memories, kept, strict=True)]
    same = all(_same_bytes(values, wanted) for values, wanted in zip(results, expected, strict=False))
    if not same or call.counts != counts.tolist() or bytes(found_sums.memory) != bytes(sums.memory):
        raise RammergeError("its result differs from eager code")


def run_on(inputs: Sequence[Tensor], call: FormCall, start: int, tile: int, wanted: slice | None = None) -> None:
    """Run a compiled form on elements that are first written to a file; see `run_tiles`."""
    with tempfile.TemporaryFile() as file:
        buffers = [pages(values.nbytes) for values in inputs]
        sources = [_stored(values, file, address(buffer)) for values, buffer in zip(inputs, buffers, strict=True)]
        run_tiles(sources, [call], start, len(inputs[0]), tile, wanted)


def _stored(values: Tensor, file: BinaryIO, to: int) -> Source:
    """Append elements to a file, and return where they are."""
    dtype = from_torch(values.dtype)
    assert dtype is not None, f"safetensors files hold no {values.dtype}"
    source = Source(dtype, to, Path(), file.fileno(), file.tell())
    file.write(values.view(torch.uint8).numpy().tobytes())
    file.flush()
    return source


def _same_bytes(left: Tensor, right: Tensor) -> bool:
    return left.dtype == right.dtype and torch.equal(left.view(torch.uint8), right.contiguous().view(torch.uint8))


def main(description: str, path: Path) -> None:
    """Make the form that `Signature.describe` described, unless another process does meanwhile.

    Raises:
        RammergeError: as `build`; or the code is not what it was when the name was made.
    """
    lock = path.with_suffix(".lock")
    with locked(lock):
        signature = Signature.read(description)
        if signature.path() != path:
            raise RammergeError("the code changed meanwhile")
        if not path.exists():
            build(signature, path)
        lock.unlink(missing_ok=True)  # who waits for it sees the form


if __name__ == "__main__":
    signal.alarm(BUILD_SECONDS)
    try:
        main(sys.argv[1], Path(sys.argv[2]))
    except (RammergeError, OSError, subprocess.SubprocessError) as error:
        sys.exit(f"{error}")
