"""Contract: the bytes of a merge depend on inputs, method, dtype, rounding and seed alone.

They do not depend on hash seeds, threads, memory, block or shard size, nor on whether code is compiled.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock, create_autospec

import pytest
import torch

from rammerge.engine import memory, running
from rammerge.engine.compiling import build, cache
from rammerge.engine.compiling.loop import Form, FormCall
from rammerge.engine.compiling.signature import Signature
from rammerge.engine.options import MergeOptions
from rammerge.engine.passes.merge_block import MergeBlock
from rammerge.engine.passes.overlap import CountBlock
from rammerge.errors import RammergeError
from rammerge.numerics.dtypes import DTYPES
from rammerge.rules import resolve
from rammerge.system.toolchain import compiler
from tests.engine.models import Models, merge, merged_without_torch, read, sparse_family, weight_bytes, write_family

SHAPES = {"embed.weight": (700, 64), "layer.weight": (300, 200), "layer.bias": (300,), "scalar": ()}
Method = tuple[str, dict[str, float]]

METHODS: list[Method] = [
    ("ram_plus", {}),
    ("ties", {}),
    ("dare_ties", {"density": 0.5, "drop_rate": 0.5}),
    ("breadcrumbs", {}),
    ("ram_ties", {"drop_rate": 0.3}),
    ("della", {}),
    ("sce", {"select": 0.4}),
]


@pytest.fixture
def family(tmp_path: Path) -> Models:
    return write_family(tmp_path, *sparse_family(SHAPES, [0.05, 0.4, 0.6]))


def files(family: Models, out: Path, method: Method, **options: Any) -> dict[str, bytes]:
    settings = MergeOptions(**{"dtype": "bfloat16", "rounding": "stochastic", "seed": 3, **options})
    return weight_bytes(merge(*family, resolve(method[0], None, method[1]), out, settings).path)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method[0])
def test_threads_and_block_size(
    family: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Method
) -> None:
    expected = files(family, tmp_path / "one", method, threads=1)
    assert files(family, tmp_path / "many", method, threads=5) == expected
    monkeypatch.setattr(memory, "DEFAULT_BLOCK", 1 << 14)
    monkeypatch.setattr(running, "EAGER_ELEMENTS", 1000)
    assert files(family, tmp_path / "small", method) == expected


def test_shard_size_moves_tensors_and_changes_none(family: Models, tmp_path: Path) -> None:
    whole = files(family, tmp_path / "whole", METHODS[0])
    sharded = files(family, tmp_path / "sharded", METHODS[0], shard_size=60_000)
    assert len(whole) + 2 <= len(sharded)
    left, right = read(tmp_path / "whole"), read(tmp_path / "sharded")
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_seed_changes_what_is_random(family: Models, tmp_path: Path) -> None:
    first = files(family, tmp_path / "first", METHODS[0], seed=1)
    second = files(family, tmp_path / "second", METHODS[0], seed=2)
    assert first["model.safetensors"] != second["model.safetensors"]


def test_hash_seed(family: Models, tmp_path: Path) -> None:
    base, agents = family
    outputs = []
    for seed in ("0", "1"):
        out = tmp_path / f"hash{seed}"
        command = [sys.executable, "-m", "rammerge", "merge", "--base", str(base.path), "--out", str(out)]
        command += ["--method", "dare_ties", "--dtype", "bfloat16"]
        for name, agent in agents.items():
            command += ["--agent", f"{name}={agent.path}"]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True)
        outputs.append(weight_bytes(out))
    assert outputs[0] == outputs[1]


@pytest.mark.skipif(compiler() is None, reason="compiles C++")
@pytest.mark.usefixtures("compiled_here")
def test_compiled_and_eager(family: Models, tmp_path: Path) -> None:
    eager = files(family, tmp_path / "eager", METHODS[0], compile="never", rounding="nearest")
    fused = files(family, tmp_path / "fused", METHODS[0], compile="always", rounding="nearest")
    # Had compiling failed, both would be eager: the compiled forms must be on disk, and load.
    dtypes = DTYPES["bfloat16"], (DTYPES["bfloat16"],) * 3
    rule = resolve("ram_plus").bind(family[1])
    for function, rows in ((CountBlock(3, "abs"), 1), (MergeBlock.of(rule, "bfloat16", "nearest"), rule.height)):
        assert cache.load(Signature(function, *dtypes, rows)) is not None
    assert fused == eager

    assert merged_without_torch(family, "ram_plus", tmp_path / "alone", seed=3) == eager


def test_a_compiled_form_that_differs_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    signature = Signature(CountBlock(2, "abs"), DTYPES["bfloat16"], (DTYPES["bfloat16"],) * 2, 1)
    path = signature.path()
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not a package")
    assert cache.load(signature) is None

    base, agents, numbers = build._sample(signature, build._CHECKED_ELEMENTS)
    _, counts = signature.function(base, agents, numbers.tensors())
    right, wrong = counts.tolist(), [*counts[:-2].tolist(), counts[-2].item() + 1, 0.0]
    monkeypatch.setattr(build, "run_on", lambda *_: None)
    form = create_autospec(Form, instance=True, ranked=0)
    monkeypatch.setattr(build, "FormCall", create_autospec(FormCall, return_value=Mock(counts=right)))
    build.check(signature, form)
    monkeypatch.setattr(build, "FormCall", create_autospec(FormCall, return_value=Mock(counts=wrong)))
    with pytest.raises(RammergeError, match="differs from eager code"):
        build.check(signature, form)


def test_no_compiler_is_said_once_and_changes_nothing(
    family: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = files(family, tmp_path / "eager", METHODS[0])
    monkeypatch.setattr(cache, "compiler", lambda: None)
    settings = MergeOptions("bfloat16", "stochastic", 3, compile="always")
    report = merge(*family, resolve("ram_plus"), tmp_path / "out", settings)
    assert weight_bytes(report.path) == expected
    assert [warning for warning in report.warnings if "no C++ compiler" in warning] == [
        "no C++ compiler found (g++ or clang++), so the merge runs eagerly: the same bytes, but slower"
    ]
