"""Block functions compiled ahead of time by torch's inductor, kept on disk, and used only if they give the same bytes.

A compiled function fuses reading, masking, merging, casting and counting into one loop: over ten times faster than
eager code on a CPU. It is made once for a machine by a process of its own, so that neither the merge's memory nor its
threads take part, and loads in milliseconds afterwards. A merge that has to wait for one begins eagerly and changes
over when it is ready: both give the same bytes, which is checked on a sample before the compiled form is trusted.
"""

import hashlib
import importlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rammerge.engine.blocks import (
    MAX_BLOCK,
    Arguments,
    BlockFunction,
    CountBlock,
    DensityBlock,
    MagnitudeBlock,
    MergeBlock,
)
from rammerge.engine.native import Source, TileLoop, build_loop, loop_path
from rammerge.engine.stream import Buffer
from rammerge.errors import RammergeError
from rammerge.home import home

MIN_COMPILED = 1024
_CODE = (
    "rammerge.masks",
    "rammerge.randomness",
    "rammerge.rounding",
    "rammerge.engine.blocks",
    "rammerge.engine.compiled",
    "rammerge.methods.spec",
    "rammerge.methods.ram",
    "rammerge.methods.arithmetic",
    "rammerge.methods.sparsified",
)
_FUNCTIONS = {"merge": MergeBlock, "count": CountBlock, "density": DensityBlock, "magnitude": MagnitudeBlock}

# As `TileLoop.__call__`.
Runner = Callable[..., list[float]]


@dataclass(frozen=True)
class Signature:
    """What a compiled form is made for: the function and the dtypes and number of its inputs."""

    function: BlockFunction
    base: torch.dtype
    agents: tuple[torch.dtype, ...]
    rows: int

    def describe(self) -> dict[str, Any]:
        """Return everything that decides the compiled code, but code and machine, as JSON."""
        names = {"base": _name(self.base), "agents": [_name(dtype) for dtype in self.agents], "rows": self.rows}
        return {"function": self.function.describe(), **names}

    @property
    def in_place(self) -> bool:
        """Whether the function is to write its tensors where the caller wants them, with none in between.

        Inductor does so without a copy, but computes them in a loop apart from the counts: not for what has both.
        """
        return self.function.counts(len(self.agents)) == 0

    def results(self) -> list[torch.dtype]:
        """Return the dtypes of the tensors that the function makes."""
        return self.function.results(len(self.agents))

    @classmethod
    def read(cls, described: dict[str, Any]) -> "Signature":
        """Return the signature that `describe` gave."""
        fields = dict(described["function"])
        function: BlockFunction = _FUNCTIONS[fields.pop("function")](**fields)
        agents = tuple(getattr(torch, name) for name in described["agents"])
        return cls(function, getattr(torch, described["base"]), agents, described["rows"])

    def path(self) -> Path:
        """Return where the compiled form is kept; code, torch and the processor's instruction set are in its name."""
        digest = hashlib.sha256(json.dumps(self.describe(), sort_keys=True).encode())
        for module in _CODE:
            digest.update(Path(str(importlib.import_module(module).__file__)).read_bytes())
        digest.update(_processor_digest().encode())
        return home() / "kernels" / f"{digest.hexdigest()[:32]}.so"


def compiler() -> str | None:
    """Return the C++ compiler that would be used, or None when the machine has none."""
    return next(
        (found for name in (os.environ.get("CXX"), "g++", "clang++") if name and (found := shutil.which(name))), None
    )


def load(signature: Signature, threads: int = 1) -> Runner | None:
    """Return the compiled form, for so many threads at a time, when it is on disk, loads here, and gives the eager
    form's bytes on a sample."""
    path = signature.path()
    if not path.is_file() or not loop_path().is_file():
        return None
    try:
        run = TileLoop(path, threads, in_place=signature.in_place)
    except (OSError, AttributeError, RuntimeError):
        path.unlink(missing_ok=True)
        loop_path().unlink(missing_ok=True)
        return None
    return run if _agrees(signature, run) else None


def start_build(signature: Signature) -> subprocess.Popen[bytes]:
    """Start to compile in a process of its own; `load` finds the result once it has ended with 0."""
    path = signature.path()
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "rammerge.engine.compiled", json.dumps(signature.describe()), str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def build(signature: Signature, path: Path) -> None:
    """Compile in this process and put the result at `path`, whole or not at all."""
    cxx = compiler()
    if cxx is not None and not loop_path().is_file():
        build_loop(cxx, loop_path())
    torch.set_num_threads(1)  # the engine's parallelism is over blocks
    # Above this many elements inductor sums floats with compensation, by the length it is shown: dear, and of no use
    # for counts that are exact anyway. The code serves any length; `_agrees` tries a longer one.
    base, agents, arguments = _sample(signature, 4096)
    length = torch.export.Dim("length", min=MIN_COMPILED, max=MAX_BLOCK)
    results = [torch.empty(len(base), dtype=dtype) for dtype in signature.results() if signature.in_place]
    along = {0: length}
    shapes = (along, [along for _ in agents], None, None, None, None, [along for _ in results])
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".build-") as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Which vector instructions work here is found by compiling samples, for longer than the function itself takes:
        # keep those, and nothing else.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(path.parent / f"probes-{_processor_digest()}")
        torch._inductor.cpu_vec_isa.valid_vec_isa_list()
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = scratch
        exported = torch.export.export(
            _Flat(signature.function), (base, agents, *arguments.as_list(), results), dynamic_shapes=shapes
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
            Path(package.extract(library, scratch)).replace(path)


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


def _sample(signature: Signature, length: int) -> tuple[Tensor, list[Tensor], Arguments]:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(length, generator=generator) * 0.02
    agents = []
    for dtype in signature.agents:
        changed = torch.rand(length, generator=generator) < 0.4
        step = torch.randn(length, generator=generator) * 2e-4
        agents.append((base.to(signature.base).float() + changed * step).to(dtype))
    count = len(agents)
    # Thresholds and rates differ by row and agent, so that a row read for another one shows.
    coefficients = torch.rand(signature.rows, count, generator=generator) * 0.9 + 0.05
    seeds = torch.arange(1, count + 2, dtype=torch.int64) * 0x1234567_89ABCDE % 2**62
    return (
        base.to(signature.base),
        agents,
        Arguments(coefficients, torch.tensor(1e-5), seeds, torch.tensor(2**32 - length // 2, dtype=torch.int64)),
    )


def _agrees(signature: Signature, run: Runner) -> bool:
    length = 10_007
    base, agents, arguments = _sample(signature, length)
    expected, expected_counts = signature.function(base, agents, arguments)
    with tempfile.TemporaryFile() as file:
        sources = []
        for values in (base, *agents):
            content = values.view(torch.uint8).numpy().tobytes()
            sources.append(Source(Path(), file.fileno(), file.tell(), values.dtype, Buffer(len(content), base.device)))
            file.write(content)
        file.flush()
        found = [torch.empty(length, dtype=dtype) for dtype in signature.results()]
        start, width = int(arguments.start), len(expected_counts)
        try:
            counts = run(sources, arguments, start, length, length // 3, width, found)
        except (RuntimeError, OSError, RammergeError):
            return False
    same = all(_same_bytes(values, wanted) for values, wanted in zip(found, expected, strict=True))
    return same and counts == expected_counts.tolist()


def _same_bytes(left: Tensor, right: Tensor) -> bool:
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    return bool(torch.equal(left.contiguous().view(torch.uint8), right.contiguous().view(torch.uint8)))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _processor_digest() -> str:
    # Compiled code uses what this processor has, and the cache may be on a disk that other machines share.
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(f"{torch.__version__} {platform.machine()} {flags}".encode()).hexdigest()[:16]


if __name__ == "__main__":
    build(Signature.read(json.loads(sys.argv[1])), Path(sys.argv[2]))
