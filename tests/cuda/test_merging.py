"""Contract: a GPU merges element by element, and in the agents' span, to the bytes of the CPU.

The counts are the same too. The size of blocks, the number of threads, a device's memory limit and a kill do not change
a byte.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rammerge.checkpoints.family import Family
from rammerge.engine import gpu, memory
from rammerge.engine.options import MergeOptions
from rammerge.engine.passes.measuring import measure_overlap
from rammerge.errors import InputError
from rammerge.numerics.masks import Mask
from rammerge.publishing.making import merge_family
from rammerge.rules import resolve
from tests.cuda.families import DEVICE, OPTIONS, assert_same_merge, mixed_family, on_both
from tests.engine.models import DATA_FREE, Models, merge, read, sparse_family, write_family

pytestmark = pytest.mark.cuda

AGENTS = ("agent0", "agent1", "agent2")
BY_BLOCKS = [name for name in DATA_FREE if not resolve(name).bind(AGENTS).matrices]
OTHERS: list[tuple[str, dict[str, Any]]] = [
    ("ram_plus", {"mask_mode": "exact", "r": 0.5}),
    ("ram_plus", {"mask_mode": "relative", "scope": "tensor"}),
    ("ram", {"mask_mode": "ulp", "ulps": 3}),
    ("ram_plus_soft", {"shared_exponent": 0.5, "conflict_exponent": 0.3}),
    ("ties", {"scope": "tensor", "merge": "sum"}),
    ("della", {"merge": "sum"}),
    ("sce", {"select": 0.3}),
]


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Models:
    monkeypatch.setattr(memory, "DEFAULT_BLOCK", memory.MIN_BLOCK)
    monkeypatch.setattr(gpu, "BLOCK", memory.MIN_BLOCK)
    return mixed_family(tmp_path)


@pytest.mark.parametrize(
    ("method", "params"), [*((name, {}) for name in BY_BLOCKS), *OTHERS], ids=lambda given: str(given)
)
def test_bytes_are_those_of_the_cpu(models: Models, tmp_path: Path, method: str, params: dict[str, Any]) -> None:
    assert_same_merge(*on_both(models, resolve(method, None, params), tmp_path))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_every_output(models: Models, tmp_path: Path, dtype: Any, rounding: Any) -> None:
    options = replace(OPTIONS, dtype=dtype, rounding=rounding, seed=7)
    assert_same_merge(*on_both(models, resolve("dare"), tmp_path, options))


def test_stochastic_float16_at_all_magnitudes(tmp_path: Path) -> None:
    """Subnormal ones and the largest too: the step of float16 is computed from the exponent."""
    exponents = torch.arange(-30, 15).repeat(700)
    base = torch.ldexp(1.0 + torch.rand(len(exponents), generator=torch.Generator().manual_seed(1)), exponents)
    models = write_family(tmp_path, {"w": base}, [{"w": base * 1.01}, {"w": base * 0.998}])
    options = replace(OPTIONS, dtype="float16")
    assert_same_merge(*on_both(models, resolve("average"), tmp_path, options))


def test_weights_rules_for_tensors_and_groups(models: Models, tmp_path: Path) -> None:
    base, agents = models
    rules: list[dict[str, Any]] = [{"match": "norm", "use": "agent2"}, {"match": "*v_proj", "params": {"r": 0.9}}]
    method = resolve("ram_plus", weights={"pair": 0.5}, tensors=rules)
    family = Family.open(base, agents, groups={"pair": ["agent0", "agent1"]})
    expected = merge_family(family, method, tmp_path / "cpu", OPTIONS)
    assert_same_merge(expected, merge_family(family, method, tmp_path / "gpu", replace(OPTIONS, device=DEVICE)))


@pytest.mark.parametrize("method", ["ram_plus", "ties", "della", "awd"])
def test_large_blocks_and_many_threads(tmp_path: Path, method: str) -> None:
    """Grains, chunks of the output and rows do not end where blocks do."""
    shapes = {"a": (700, 3001), "b": (1 << 17,), "c": (3, 70_000)}
    models = write_family(tmp_path, *sparse_family(shapes, [0.1, 0.6]))
    options = replace(OPTIONS, threads=8, shard_size=3_000_000)
    assert_same_merge(*on_both(models, resolve(method), tmp_path, options))


@pytest.mark.parametrize("mask", [Mask(), Mask("relative", 1e-3)], ids=lambda mask: mask.mode)
def test_counts_products_and_densities_are_those_of_the_cpu(models: Models, mask: Mask) -> None:
    family = Family.open(*models)
    expected, found = (measure_overlap(family, mask, MergeOptions(device=device)) for device in ("cpu", DEVICE))
    assert found == expected
    assert found.gram == expected.gram
    assert found.densities == expected.densities


def test_an_overflow_and_a_nan_are_named(models: Models, tmp_path: Path) -> None:
    base, agents = models
    on_gpu = replace(OPTIONS, device=DEVICE)
    large = write_family(tmp_path / "large", {"w": torch.full((9,), 60_000.0)}, [{"w": torch.full((9,), 70_000.0)}])
    with pytest.raises(InputError, match="the merged 'w' overflows float16; use dtype bfloat16 or float32"):
        merge(*large, resolve("ram"), tmp_path / "out", replace(on_gpu, dtype="float16"))
    broken = read(agents["agent1"].path)
    broken["layers.0.v_proj"][250, 30] = float("nan")
    others = write_family(tmp_path / "broken", read(base.path), [read(agents["agent0"].path), broken])
    for method in ("ram_plus", "ties", "tsv_m"):
        with pytest.raises(InputError, match=r"agent 'agent1' has a NaN or an infinity in 'layers.0.v_proj'"):
            merge(*others, resolve(method), tmp_path / "out", on_gpu)


@pytest.mark.parametrize("method", ["ram_plus", "ties", "dare", "awd", "della"])
def test_blocks_stay_below_the_limit_of_the_gpu(tmp_path: Path, method: str) -> None:
    models = write_family(tmp_path, *sparse_family({"w": (3000, 1500)}, [0.1, 0.6]))
    options = replace(OPTIONS, device=DEVICE, device_memory=100 << 20)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    found = merge(*models, resolve(method), tmp_path / "gpu", options)
    assert torch.cuda.max_memory_allocated() - before <= 100 << 20
    assert_same_merge(merge(*models, resolve(method), tmp_path / "cpu", OPTIONS), found)
    with pytest.raises(InputError, match=r"--device-memory 1MiB of cuda is too little: .* needs \d+MiB there"):
        merge(*models, resolve(method), tmp_path / "out", replace(options, device_memory=1 << 20))


def test_a_device_that_is_not_there_is_named(models: Models, tmp_path: Path) -> None:
    there = torch.cuda.device_count()
    with pytest.raises(InputError, match=rf"device 'cuda:{there}' .*; use cuda:0"):
        merge(*models, resolve("ram"), tmp_path / "out", replace(OPTIONS, device=f"cuda:{there}"))


KILLED = """
import os, signal, sys
from pathlib import Path
from rammerge.checkpoints.checkpoint import open_checkpoint
from rammerge.checkpoints.family import Family
from rammerge.engine.options import MergeOptions
from rammerge.engine.output.shards import ShardWriter
from rammerge.publishing.making import merge_family
from rammerge.rules import resolve
root, out, method, device, left = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5])
finish = ShardWriter.finish
def counted(self, counts):
    global left
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return finish(self, counts)
ShardWriter.finish = counted
base, *agents = (open_checkpoint(root / name) for name in ("base", "agent0", "agent1", "agent2"))
family = Family.open(base, {f"agent{index}": agent for index, agent in enumerate(agents)})
options = MergeOptions("bfloat16", "stochastic", compile="never", threads=3, shard_size=40_000, device=device)
merge_family(family, resolve(method), out, options)
"""


@pytest.mark.parametrize("method", ["ties", "tsv_m"])
def test_kill_9_and_again(models: Models, tmp_path: Path, method: str) -> None:
    options = replace(OPTIONS, shard_size=40_000, device=DEVICE)
    expected = merge(*models, resolve(method), tmp_path / "expected", options)
    for left in (0, 1):
        arguments = [str(tmp_path), str(tmp_path / "out"), method, DEVICE, str(left)]
        killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], env=dict(os.environ), check=False)
        assert killed.returncode == -9
        assert not (tmp_path / "out").exists()
    assert_same_merge(expected, merge(*models, resolve(method), tmp_path / "out", options))
