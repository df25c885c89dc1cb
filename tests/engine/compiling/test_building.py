"""Contract: every block function of the library, and each operation that a method may use, compiles to torch's bytes.

What cannot be compiled runs eagerly, and the report says why.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor

from rammerge.engine import memory
from rammerge.engine.blocks import Arguments, Block, BlockFunction, Numbers, Update, counted, health
from rammerge.engine.buffers import as_tensor, pages
from rammerge.engine.compiling import cache
from rammerge.engine.compiling.build import build, run_on
from rammerge.engine.compiling.loop import Form, FormCall
from rammerge.engine.compiling.signature import Signature
from rammerge.engine.options import Dtype, MergeOptions
from rammerge.engine.passes.densities import ChangesByRule
from rammerge.engine.passes.merge_block import MergeBlock, UpdateBlock, block_function
from rammerge.engine.passes.overlap import CountBlock
from rammerge.errors import RammergeError
from rammerge.numerics.dtypes import DTYPES, DType
from rammerge.numerics.masks import MaskMode
from rammerge.numerics.rounding import Rounding
from rammerge.rules import METHODS, Method, Params, resolve
from rammerge.system.toolchain import compiler
from tests.engine.models import merge, sparse_family, weight_bytes, write_family

pytestmark = [pytest.mark.long, pytest.mark.skipif(compiler() is None, reason="compiles C++")]

BFLOAT16, FLOAT16, FLOAT32 = (DTYPES[name] for name in ("bfloat16", "float16", "float32"))
AGENTS = ("tool", "code", "math")
Output = tuple[Dtype, Rounding]
OUTPUTS: list[Output] = [("bfloat16", "stochastic"), ("float16", "stochastic"), ("float32", "nearest")]


def library() -> Iterator[tuple[str, BlockFunction, DType, int, bool]]:
    """Return a name, a block function, the base's dtype, the rows of coefficients, and whether it needs whole rows."""
    turns = zip(cycle(OUTPUTS), cycle((BFLOAT16, FLOAT32, FLOAT16, BFLOAT16)), strict=False)
    for name in METHODS:
        rule, ((dtype, rounding), base) = resolve(name).bind(AGENTS), next(turns)
        yield name, MergeBlock.of(rule, dtype, rounding), base, rule.height, rule.by_rows
        for each in rule.passes:
            yield f"{name}-{each.name}", each.function(3), BFLOAT16, each.height, False
    diluted = resolve("ram_plus", None, {"shared_exponent": 0.5, "conflict_exponent": 0.7}).bind(AGENTS)
    yield "ram_plus-diluted", MergeBlock.of(diluted, "float32", "nearest"), BFLOAT16, diluted.height, False
    then, rows = (resolve(name, then=["svc"]).bind(AGENTS) for name in ("dare", "della"))
    yield "update", UpdateBlock.of(then), BFLOAT16, then.height, False
    yield "update-by-rows", UpdateBlock.of(rows), BFLOAT16, rows.height, True
    yield "solved", block_function(then, "bfloat16", "nearest", solved=True), BFLOAT16, then.height, False
    for mode in get_args(MaskMode):
        yield f"count-{mode}", CountBlock(3, mode), next(turns)[1], 1, False
    yield "densities", ChangesByRule().function(3), BFLOAT16, 1, False


@pytest.mark.parametrize(
    ("function", "base", "rows", "by_rows"), [pytest.param(*rest, id=name) for name, *rest in library()]
)
def test_the_library_compiles(function: BlockFunction, base: DType, rows: int, by_rows: bool, tmp_path: Path) -> None:
    signature = Signature(function, base, (base, FLOAT32, BFLOAT16), rows, by_rows=by_rows)
    build(signature, tmp_path / "form.so")  # it compares the bytes


def operations(x: Tensor, half: Tensor, brain: Tensor, start: Tensor) -> dict[str, Tensor]:
    """Return what each operation makes of float32, float16 and bfloat16 elements."""
    b, n = brain.float(), x.view(torch.int32)
    long, bounded = n.to(torch.int64) * 5, x.clamp(-1e6, 1e6)
    _, exponent = torch.frexp(x)
    return {
        "from float16": half.float(),
        "from bfloat16": b,
        "to float16": x.half(),
        "to bfloat16": x.bfloat16(),
        "to double": (x.double() * 3.0).float(),
        "to int": torch.where(x == x, bounded, 0.0).to(torch.int32).float(),
        "from long": long.float(),
        "add": x + b,
        "sub": x - b,
        "rsub": 1.5 - x,
        "mul": x * b,
        "div": x / b,
        "neg": -x,
        "abs": x.abs(),
        "abs of int": n.abs().float(),
        "sign": x.sign(),
        "maximum": torch.maximum(x, b),
        "minimum": torch.minimum(x, b),
        "clamp": x.clamp(min=-2.0),
        "clamp both": x.clamp(-2.0, 3.0),
        "relu": x.relu(),
        "floor": x.floor(),
        "isinf": x.isinf().float(),
        "isnan": x.isnan().float(),
        "comparisons": (x < b).float() + 2 * (x <= b).float() + 4 * (x > b).float() + 8 * (x >= b).float(),
        "equality": (x == b).float() + 2 * (x != b).float(),
        "logic": torch.where((x > 0) & (b > 0) | ((x < 1) ^ (b < 1)), x, b),
        "frexp": exponent.float(),
        "ldexp": torch.ldexp(b, exponent * 3),
        "bits": ((long & 0xFFFF) | (long >> 40) ^ (long << 3)).float(),
        "product of longs": ((long * long) >> 32).float(),
        "comparison of longs": torch.where(long < 0, -long, long).float(),
        "index": (torch.arange(len(x)) + start).float(),
    }


@dataclass(frozen=True)
class Operations:
    """A block function that is one operation after the other."""

    def counts(self, _: int) -> int:
        """Return the number of counts, without the health."""
        return 1

    def results(self, _: int) -> list[DType]:
        """Return the dtypes of the resulting tensors."""
        sample = torch.ones(4)
        made = operations(sample, sample.half(), sample.bfloat16(), torch.tensor(0)).values()
        return [DTYPES[str(values.dtype).removeprefix("torch.")] for values in made]

    def __call__(self, base: Tensor, agents: Sequence[Tensor], arguments: Arguments) -> tuple[list[Tensor], Tensor]:
        """Return a tensor for each operation."""
        half, brain = agents
        made = operations(base, half, brain, arguments.start)
        return list(made.values()), counted([made["isnan"]], health(torch.zeros_like(base)))


def test_each_operation_gives_the_bits_of_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signature = Signature(Operations(), FLOAT32, (FLOAT16, BFLOAT16), 1)
    monkeypatch.setattr("rammerge.engine.compiling.build.check", lambda *_: None)  # not of NaN, as here
    build(signature, tmp_path / "form.so")
    form = Form(tmp_path / "form.so", signature.results())
    every = torch.arange(1 << 16)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(-(2**31), 2**31 - 1, (1 << 16,), generator=generator)
    for patterns in (every << 16, every - (1 << 15) + 0x38800000, drawn):
        halves = every.to(torch.int16)
        inputs = [patterns.to(torch.int32).view(torch.float32), halves.view(torch.float16), halves.view(torch.bfloat16)]
        made, _ = signature.function(inputs[0], inputs[1:], NUMBERS.tensors())
        names = operations(inputs[0], inputs[1], inputs[2], torch.tensor(0))
        for name, found, expected in zip(names, compiled(form, signature, inputs), made, strict=True):
            assert same_bits(found, expected), name


NUMBERS = Numbers([[1.0, 1.0]], 1e-5, [0, 0, 0], 7)


def compiled(form: Form, signature: Signature, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Run a compiled form on inputs; return its tensors."""
    length = len(inputs[0])
    memories = [pages(length * dtype.itemsize) for dtype in signature.results()]
    run_on(inputs, FormCall(form, NUMBERS, 2, memories), NUMBERS.start, length)
    return [as_tensor(memory, dtype) for memory, dtype in zip(memories, signature.results(), strict=True)]


def same_bits(left: Tensor, right: Tensor) -> bool:
    """Compare bit patterns; which NaN it is does not matter."""
    integers = {2: torch.int16, 4: torch.int32}[left.itemsize]
    same = left.view(integers) == right.view(integers)
    return left.dtype == right.dtype and bool((same | (left.isnan() & right.isnan())).all())


Kernel = Callable[[Block], Update]


def softened(block: Block) -> Update:
    return Update(torch.exp(block.deltas[0]) - 1.0)


def of_the_whole_block(block: Block) -> Update:
    return Update(block.deltas[0] - block.deltas[0].mean())


def by_a_branch(block: Block) -> Update:
    return Update(block.deltas[0] if float(block.coefficients[0, 0]) > 0 else block.deltas[1])


def with_a_number_of_this_run(block: Block) -> Update:
    return Update(block.deltas[0] * block.coefficients.tolist()[0][0])


def test_recording_does_not_wait_for_torchs_own_compiler() -> None:
    script = """
import sys, torch
from rammerge.engine.blocks import Numbers
from rammerge.engine.compiling.recording import record
base, numbers = torch.ones(7), Numbers([[1.0]], 0.0, [0, 0], 0).tensors()
record(lambda base, agents, _: ([base + agents[0]], torch.stack([base.sum()])), base, [base + 1], numbers)
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.parametrize(
    ("kernel", "reason"),
    [
        (softened, "exp has no compiled form"),
        (of_the_whole_block, "mean has no compiled form"),
        (by_a_branch, "_local_scalar_dense has no compiled form"),
        (with_a_number_of_this_run, "differs from eager code"),
    ],
)
def test_what_has_no_compiled_form_is_not_compiled(kernel: Kernel, reason: str, tmp_path: Path) -> None:
    function = MergeBlock(kernel, False, "abs", "bfloat16", "nearest")
    with pytest.raises(RammergeError, match=reason):
        build(Signature(function, BFLOAT16, (BFLOAT16,) * 2, 1), tmp_path / "form.so")
    assert list(tmp_path.iterdir()) == []


def test_a_method_without_compiled_form_merges_and_says_why(tmp_path: Path) -> None:
    family = write_family(tmp_path, *sparse_family({"a": (300,), "b": (40, 50)}, [0.2, 0.4]))
    method = resolve(Method("softened", "A test.", "here", Params, softened))
    eager = merge(*family, method, tmp_path / "eager", MergeOptions("bfloat16", compile="never"))
    report = merge(*family, method, tmp_path / "out", MergeOptions("bfloat16", compile="always"))
    assert weight_bytes(report.path) == weight_bytes(eager.path)
    assert [warning for warning in report.warnings if "eagerly" in warning] == [
        "compiling failed (exp has no compiled form), so the merge runs eagerly: the same bytes, but slower"
    ]


@pytest.mark.usefixtures("compiled_here")
def test_a_method_that_needs_whole_rows_compiles(
    tmp_path: Path, rammerge_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "DEFAULT_BLOCK", memory.MIN_BLOCK)  # so that blocks end within rows
    shapes = {"a": (300,), "b": (40, 50), "long": (2, 50_000), "cut": (64, 897), "alone": (30, 1)}
    family = write_family(tmp_path, *sparse_family(shapes, [0.2, 0.9]))
    eager = merge(*family, resolve("della"), tmp_path / "eager", MergeOptions("bfloat16", compile="never"))
    report = merge(*family, resolve("della"), tmp_path / "out", MergeOptions("bfloat16", compile="always"))
    assert weight_bytes(report.path) == weight_bytes(eager.path)
    assert list(rammerge_home.glob("kernels/*.so"))
    assert not [warning for warning in report.warnings if "eagerly" in warning]


def test_work_decides_what_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rammerge_home: Path) -> None:
    family = write_family(tmp_path, *sparse_family({"a": (1000,), "b": (40, 50)}, [0.2, 0.4]))
    runs = (merge(*family, resolve("ram"), tmp_path / f"out{index}", MergeOptions("bfloat16")) for index in range(9))
    for _ in range(3):
        next(runs)
    assert not list(rammerge_home.glob("kernels/*.so"))

    # The fourth adds to what the first three are counted for, and with its own 3,000 elements it is enough.
    rule = resolve("ram").bind(family[1])
    signature = Signature(MergeBlock.of(rule, "bfloat16", "nearest"), BFLOAT16, (BFLOAT16,) * 2, rule.height)
    monkeypatch.setattr("rammerge.engine.running.COMPILE_FROM_ELEMENTS", cache.eager_elements(signature) + 3000)
    report = next(runs)
    assert signature.path().is_file()
    assert weight_bytes(report.path)["model.safetensors"] == (tmp_path / "out0" / "model.safetensors").read_bytes()
    before = cache.eager_elements(signature)
    next(runs)
    assert cache.eager_elements(signature) == before


_BEGIN = """
import os, sys
from rammerge.engine.compiling import cache
from rammerge.engine.compiling.signature import Signature
build = cache.start_build(Signature.read(sys.argv[1]))
assert cache.start_build(Signature.read(sys.argv[1])) is build, "there is one process for what is under way"
os._exit(9)
"""


def test_a_compiler_goes_on_when_the_merge_ends(rammerge_home: Path) -> None:
    signature = Signature(CountBlock(2, "abs"), BFLOAT16, (BFLOAT16,) * 2, 1)
    ended = subprocess.run([sys.executable, "-c", _BEGIN, signature.describe()], check=False)
    assert ended.returncode == 9
    # It waits for the one that goes on, or takes its lock when it is done; in both cases the form is there.
    cache.start_build(signature).wait()
    assert cache.load(signature) is not None
    assert [path.name for path in (rammerge_home / "kernels").iterdir()] == [signature.path().name]
