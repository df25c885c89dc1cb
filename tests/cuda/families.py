"""Families and comparisons for tests on a GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from rammerge.engine.options import MergeOptions
from rammerge.publishing.report import MergeReport
from rammerge.rules import ResolvedMethod
from tests.engine.models import Models, merge, read, sparse_family, write_family

DEVICE = "cuda"
# Several blocks, rows that blocks cut, a vector, a number, and nothing.
SHAPES = {"layers.0.q_proj": (150, 300), "layers.0.v_proj": (300, 40), "norm": (300,), "one": (), "none": (0, 5)}
OPTIONS = MergeOptions("bfloat16", "stochastic", compile="never", threads=3)


def mixed_family(root: Path, shapes: Mapping[str, Sequence[int]] = SHAPES) -> Models:
    """Write a base in bfloat16 and agents that are stored in three dtypes."""
    base, agents = sparse_family(shapes, [0.05, 0.5, 0.6])
    stored = zip(agents, (torch.bfloat16, torch.float32, torch.float16), strict=True)
    return write_family(root, base, [{name: each.to(dtype) for name, each in agent.items()} for agent, dtype in stored])


def on_both(
    models: Models, method: ResolvedMethod, root: Path, options: MergeOptions = OPTIONS, **rest: Any
) -> tuple[MergeReport, MergeReport]:
    """Merge on the CPU and on the GPU."""
    expected = merge(*models, method, root / "cpu", options, **rest)
    return expected, merge(*models, method, root / "gpu", replace(options, device=DEVICE), **rest)


def assert_same_merge(expected: MergeReport, found: MergeReport) -> None:
    """Assert that two merges have the same bytes and the same counts."""
    wanted, got = read(expected.path), read(found.path)
    assert wanted.keys() == got.keys()
    for name, values in wanted.items():
        assert torch.equal(values.flatten().view(torch.uint8), got[name].flatten().view(torch.uint8)), name
    assert found.manifest.survival == expected.manifest.survival
    assert found.manifest.factors == expected.manifest.factors
