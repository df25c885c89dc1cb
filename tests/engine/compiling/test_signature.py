"""Contract: the name of a compiled form changes with all code that its machine code is made of, and with no other."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from rammerge.engine.blocks import BlockFunction, Update
from rammerge.engine.compiling.build import _sample
from rammerge.engine.compiling.signature import Signature
from rammerge.engine.passes.densities import ChangesByRule
from rammerge.engine.passes.merge_block import MergeBlock
from rammerge.errors import RammergeError
from rammerge.numerics.dtypes import DTYPES
from rammerge.rules import METHODS, resolve

ROOT = Path(__file__).parents[3]
BFLOAT16 = DTYPES["bfloat16"]

OWN_METHOD = """
from rammerge.engine.blocks import Block, Update
from own_formulas import scaled

def kernel(block: Block) -> Update:
    return Update(scaled(block.deltas[0]))
"""
NAME = """
import json, sys
from own_method import kernel
from rammerge.engine.compiling.signature import Signature
from rammerge.engine.passes.merge_block import MergeBlock
from rammerge.numerics.dtypes import DTYPES
signature = Signature(MergeBlock(kernel, False, "abs", "bfloat16", "nearest"), DTYPES["bfloat16"], (), 1)
print(json.dumps([signature.path().name, "torch" in sys.modules]))
"""


def name_of_own_method(directory: Path) -> str:
    """Return the name under which a new process keeps the compiled form of `own_method`."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(directory), str(ROOT)])}
    command = [sys.executable, "-c", NAME]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    name, has_torch = json.loads(done.stdout)
    assert not has_torch, "a merge asks for the name in order to do without torch"
    return str(name)


def test_a_changed_formula_has_another_name(tmp_path: Path) -> None:
    (tmp_path / "own_method.py").write_text(OWN_METHOD)
    (tmp_path / "own_formulas.py").write_text("def scaled(values):\n    return values * 0.5\n")
    (tmp_path / "unrelated.py").write_text("FACTOR = 1\n")
    first = name_of_own_method(tmp_path)

    (tmp_path / "unrelated.py").write_text("FACTOR = 2\n")
    assert name_of_own_method(tmp_path) == first
    (tmp_path / "own_formulas.py").write_text("def scaled(values):\n    return values * 0.25\n")
    second = name_of_own_method(tmp_path)
    (tmp_path / "own_method.py").write_text(OWN_METHOD.replace("deltas[0]", "deltas[-1]"))
    assert len({first, second, name_of_own_method(tmp_path)}) == 3


def functions() -> Iterator[tuple[BlockFunction, int]]:
    """Return every block function of the library, for two agents, and the rows of coefficients that it reads."""
    for name in METHODS:
        rule = resolve(name).bind(["one", "other"])
        yield MergeBlock.of(rule, "bfloat16", "stochastic"), rule.height
        yield from ((each.function(2), each.height) for each in rule.passes)
    yield ChangesByRule().function(2), ChangesByRule.height


@pytest.mark.parametrize(("function", "rows"), functions(), ids=lambda value: type(value).__name__)
def test_the_name_covers_every_line_that_runs(function: BlockFunction, rows: int) -> None:
    signature = Signature(function, BFLOAT16, (BFLOAT16, BFLOAT16), rows)
    base, agents, numbers = _sample(signature, 10)
    ran = files_that_run(lambda: function(base, agents, numbers.tensors()))
    assert len(ran) >= 2, "the block function and what it calls"
    assert ran <= signature.files()
    rooms = {path.parent.name for path in signature.files()}
    assert not rooms & {"cli", "publishing", "checkpoints", "output", "recipe"}, "a change there compiles nothing again"


def files_that_run(call: Callable[[], Any]) -> set[Path]:
    """Return the files of the library whose functions a call enters."""
    found: set[Path] = set()

    def enter(frame: FrameType, event: str, _: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(ROOT / "rammerge"):
            found.add(path)

    before = sys.getprofile()
    sys.setprofile(enter)
    try:
        call()
    finally:
        sys.setprofile(before)
    return found


def test_the_translation_is_covered() -> None:
    files = {path.name for path in Signature(ChangesByRule().function(2), BFLOAT16, (BFLOAT16,) * 2, 1).files()}
    assert {"recording.py", "source.py", "build.py", "elementwise.h", "tiles.cpp"} <= files


def test_a_description_can_be_read_back() -> None:
    for function, rows in functions():
        signature = Signature(function, BFLOAT16, (BFLOAT16, DTYPES["float32"]), rows)
        assert Signature.read(signature.describe()) == signature


def test_a_function_that_no_other_process_finds_has_no_name() -> None:
    function = MergeBlock(lambda block: Update(block.deltas[0]), False, "abs", "bfloat16", "nearest")
    with pytest.raises(RammergeError, match=r"<lambda> is not defined at the top of a module"):
        Signature(function, BFLOAT16, (BFLOAT16,), 1).path()


def test_every_part_of_a_signature_is_in_the_name() -> None:
    kernel, other = METHODS["ram"].kernel, METHODS["average"].kernel
    made = [
        Signature(MergeBlock(kernel, False, "abs", "bfloat16", "nearest"), BFLOAT16, (BFLOAT16,) * 2, 1),
        Signature(MergeBlock(other, False, "abs", "bfloat16", "nearest"), BFLOAT16, (BFLOAT16,) * 2, 1),
        Signature(MergeBlock(kernel, False, "exact", "bfloat16", "nearest"), BFLOAT16, (BFLOAT16,) * 2, 1),
        Signature(MergeBlock(kernel, False, "abs", "bfloat16", "nearest"), BFLOAT16, (BFLOAT16,) * 3, 1),
        Signature(MergeBlock(kernel, False, "abs", "bfloat16", "nearest"), DTYPES["float32"], (BFLOAT16,) * 2, 1),
        Signature(MergeBlock(kernel, False, "abs", "bfloat16", "nearest"), BFLOAT16, (BFLOAT16,) * 2, 2),
    ]
    assert len({signature.path() for signature in made}) == len(made)
