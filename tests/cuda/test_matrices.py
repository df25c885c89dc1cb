"""Contract: on a GPU, methods on whole matrices merge to what the published formulas give, within one rounding.

The CPU's linear algebra adds up in another order, so bytes may differ; a kept update and any number of threads do not
change those of one GPU.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rammerge.checkpoints.family import Family
from rammerge.engine.matrices import view
from rammerge.engine.matrices.ranks import measure_ranks
from rammerge.engine.options import MergeOptions
from rammerge.rules import resolve
from tests.cuda.families import DEVICE, OPTIONS, assert_same_merge, mixed_family, on_both
from tests.engine.models import Models, merge, read
from tests.rules.spectral import FORMULAS

pytestmark = pytest.mark.cuda

# Wide, tall and square, of several blocks each, and vectors.
MATRICES = {"wide.q_proj": (40, 110), "tall.q_proj": (90, 40), "square.q_proj": (50, 50)}
SHAPES = {**MATRICES, "norm": (300,), "one": ()}


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Models:
    monkeypatch.setattr(view, "BLOCK_ELEMENTS", 1000)
    monkeypatch.setattr(view, "_LEAST_WIDTH", 16)
    return mixed_family(tmp_path, SHAPES)


@pytest.mark.parametrize("method", FORMULAS)
def test_the_formula_within_float32(models: Models, tmp_path: Path, method: str) -> None:
    options = MergeOptions("float32", compile="never", device=DEVICE)
    merged = read(merge(*models, resolve(method), tmp_path / "out", options).path)
    before, agents = read(models[0].path), [read(agent.path) for agent in models[1].values()]
    for name in MATRICES:
        deltas = [(agent[name].float() - before[name].float()).double() for agent in agents]
        wanted = FORMULAS[method](deltas)
        error = (merged[name].double() - before[name].double() - wanted).norm()
        rounding = 6e-8 * before[name].double().norm()
        assert float(error) <= 1e-6 * float(wanted.norm()) + float(rounding), name


@pytest.mark.parametrize("method", [*FORMULAS, "resmerge"])
def test_one_rounding_from_the_cpu(models: Models, tmp_path: Path, method: str) -> None:
    options = replace(OPTIONS, rounding="nearest")
    expected, found = (read(report.path) for report in on_both(models, resolve(method), tmp_path, options))
    for name, values in expected.items():
        steps = (values.flatten().view(torch.int16).int() - found[name].flatten().view(torch.int16).int()).abs()
        assert not steps.numel() or int(steps.max()) <= 1, name
        assert float((steps != 0).float().sum()) <= 1e-3 * steps.numel() + 2, name


def test_steps_after_a_method(models: Models, tmp_path: Path) -> None:
    options = replace(OPTIONS, dtype="float32")
    method = resolve("ram_plus", then=[{"svc": {"alpha": 0.1}}])
    expected, found = (read(report.path) for report in on_both(models, method, tmp_path, options))
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, rtol=1e-6, atol=1e-9)


def test_threads_do_not_change_a_byte(models: Models, tmp_path: Path) -> None:
    one, many = (
        merge(*models, resolve("tsv_m"), tmp_path / str(threads), replace(OPTIONS, device=DEVICE, threads=threads))
        for threads in (1, 4)
    )
    assert_same_merge(one, many)


def test_ranks(models: Models) -> None:
    """A square of a singular value is known to 2e-16 of the largest, so one near zero is known to its root, 1.5e-8."""
    family = Family.open(*models)
    expected, found = (measure_ranks(family, MergeOptions(device=device)) for device in ("cpu", DEVICE))
    for name, ranks in expected.by_tensor.items():
        assert found.by_tensor[name].effective == pytest.approx(ranks.effective, rel=1e-6)
        assert found.by_tensor[name].stable == pytest.approx(ranks.stable, rel=1e-9)
