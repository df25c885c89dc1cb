"""Compiling a block function ahead of time by torch's inductor, and seeing that it gives the eager form's bytes.

Run as a process of its own by `rammerge.engine.compiling.cache.start_build`.
"""

import json
import os
import sys
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from rammerge.engine.blocks import MAX_BLOCK, Arguments, BlockFunction, Numbers
from rammerge.engine.buffers import Buffer, as_tensor, pages
from rammerge.engine.compiling.cache import Signature, compiler, processor_digest
from rammerge.engine.compiling.loop import LEAST_ELEMENTS, Source, TileLoop, build_loop, loop_path
from rammerge.errors import RammergeError
from rammerge.numerics.dtypes import from_torch


def build(signature: Signature, path: Path) -> None:
    """Compile in this process and put the result at `path`, whole or not at all.

    Raises:
        RammergeError: what was compiled gives other bytes than eager code.
    """
    cxx = compiler()
    if cxx is not None and not loop_path().is_file():
        build_loop(cxx, loop_path())
    torch.set_num_threads(1)  # the engine's parallelism is over blocks
    # Above this many elements inductor sums floats with compensation, by the length it is shown: dear, and of no use
    # for counts that are exact anyway. The code serves any length; `check` tries a longer one.
    base, agents, numbers = _sample(signature, 4096)
    length = torch.export.Dim("length", min=LEAST_ELEMENTS, max=MAX_BLOCK)
    results = [torch.empty(len(base), dtype=dtype.torch_dtype) for dtype in signature.results() if signature.in_place]
    along = {0: length}
    shapes = (along, [along for _ in agents], None, None, None, None, [along for _ in results])
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".build-") as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Which vector instructions work here is found by compiling samples, for longer than the function itself takes:
        # keep those, and nothing else.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(path.parent / f"probes-{processor_digest()}")
        torch._inductor.cpu_vec_isa.valid_vec_isa_list()
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = scratch
        exported = torch.export.export(
            _Flat(signature.function), (base, agents, *numbers.tensors().as_list(), results), dynamic_shapes=shapes
        )
        made = torch._inductor.aoti_compile_and_package(
            exported,
            package_path=str(Path(scratch) / "kernel.pt2"),
            inductor_configs={
                # Fused code would else skip the rounding of a value that it casts down and up again.
                "emulate_precision_casts": True,
                "cpp.enable_floating_point_contract_flag": "off",
                # One loop however many counts there are and whatever they share: a second one would read everything
                # again, or what the first one stored for it.
                "max_fusion_size": 1024,
                "realize_reads_threshold": 1 << 20,
                "realize_opcount_threshold": 1 << 20,
                "realize_acc_reads_threshold": 1 << 20,
            },
        )
        with zipfile.ZipFile(made) as package:
            (library,) = (name for name in package.namelist() if name.endswith(".so"))
            found = Path(package.extract(library, scratch))
        check(signature, TileLoop(found, signature.results(), threads=1, in_place=signature.in_place))
        found.replace(path)


class _Flat(torch.nn.Module):
    def __init__(self, function: BlockFunction) -> None:
        super().__init__()
        self.function = function

    def forward(
        self,
        base: Tensor,
        agents: list[Tensor],
        coefficients: Tensor,
        threshold: Tensor,
        seeds: Tensor,
        start: Tensor,
        results: list[Tensor],
    ) -> tuple[Tensor, ...]:
        made, counts = self.function(base, agents, Arguments(coefficients, threshold, seeds, start))
        for result, values in zip(results, made, strict=bool(results)):
            result.copy_(values)
        return (counts,) if results else (*made, counts)


def _sample(signature: Signature, length: int) -> tuple[Tensor, list[Tensor], Numbers]:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(length, generator=generator) * 0.02
    agents = []
    for dtype in signature.agents:
        changed = torch.rand(length, generator=generator) < 0.4
        step = torch.randn(length, generator=generator) * 2e-4
        agents.append((base.to(signature.base.torch_dtype).float() + changed * step).to(dtype.torch_dtype))
    count = len(agents)
    # Thresholds and rates differ by row and agent, so that a row read for another one shows.
    coefficients = (torch.rand(signature.rows, count, generator=generator) * 0.9 + 0.05).tolist()
    seeds = [number * 0x1234567_89ABCDE % 2**62 for number in range(1, count + 2)]
    return base.to(signature.base.torch_dtype), agents, Numbers(coefficients, 1e-5, seeds, 2**32 - length // 2)


def check(signature: Signature, run: TileLoop) -> None:
    """See that the compiled form gives the eager form's bytes and counts on a sample.

    Raises:
        RammergeError: it does not.
    """
    length, dtypes = 10_007, signature.results()
    base, agents, numbers = _sample(signature, length)
    expected, counts = signature.function(base, agents, numbers.tensors())
    memories = [pages((length + LEAST_ELEMENTS) * dtype.itemsize) for dtype in dtypes]
    with tempfile.TemporaryFile() as file:
        sources = [_stored(values, file) for values in (base, *agents)]
        tile = length // 3  # and a last one of two elements
        found = run(sources, numbers, length, tile, len(counts), memories)
    results = [as_tensor(memory, dtype)[:length] for memory, dtype in zip(memories, dtypes, strict=True)]
    same = all(_same_bytes(values, wanted) for values, wanted in zip(results, expected, strict=True))
    if not same or found != counts.tolist():
        raise RammergeError("its result differs from eager code")


def _stored(values: Tensor, file: BinaryIO) -> Source:
    """Append elements to a file, and return where they are."""
    dtype = from_torch(values.dtype)
    assert dtype is not None, f"safetensors files hold no {values.dtype}"
    buffer = Buffer(pages(max(len(values), LEAST_ELEMENTS) * dtype.itemsize))
    source = Source(Path(), file.fileno(), file.tell(), dtype, buffer)
    file.write(values.view(torch.uint8).numpy().tobytes())
    file.flush()
    return source


def _same_bytes(left: Tensor, right: Tensor) -> bool:
    return left.dtype == right.dtype and torch.equal(left.view(torch.uint8), right.contiguous().view(torch.uint8))


if __name__ == "__main__":
    build(Signature.read(json.loads(sys.argv[1])), Path(sys.argv[2]))
