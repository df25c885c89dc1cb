"""Contract: DELLA keeps an element with the probability of its place in its row, and divides it by that probability.

So the expectation is the task vector. Rows are whole however long they are and however the work is cut up.
"""

from pathlib import Path

import pytest
import torch

from rammerge.engine import running
from rammerge.engine.options import MergeOptions
from rammerge.rules import resolve
from tests.engine.models import Models, merge, read, write_family

WINDOW, DROP = 0.4, 0.3
SUM = resolve("della", None, {"drop_rate": DROP, "window": WINDOW, "merge": "sum"})


def of_zeros(root: Path, deltas: list[torch.Tensor]) -> Models:
    """A base of zeros, so that agents and merges are their task vectors."""
    return write_family(root, {"w": torch.zeros_like(deltas[0])}, [{"w": delta} for delta in deltas])


def merged(models: Models, out: Path, seed: int = 0, method: str | None = None) -> torch.Tensor:
    chosen = resolve(method, None, {"drop_rate": DROP, "window": WINDOW}) if method else SUM
    return read(merge(*models, chosen, out, MergeOptions(seed=seed)).path)["w"]


def keep_probability(deltas: torch.Tensor) -> torch.Tensor:
    """Sort each row: its smallest element is kept with 1 - DROP - WINDOW / 2, its largest with WINDOW more."""
    probability = torch.empty(deltas.shape, dtype=torch.float64)
    for row, values in enumerate(deltas):
        for place, index in enumerate(sorted(range(len(values)), key=lambda i: abs(float(values[i])))):
            probability[row, index] = 1 - DROP - WINDOW / 2 + WINDOW * place / (len(values) - 1)
    return probability


def test_what_is_kept_is_divided_by_its_probability(tmp_path: Path) -> None:
    deltas = torch.randn(60, 7, generator=torch.Generator().manual_seed(0))
    found, probability = merged(of_zeros(tmp_path, [deltas]), tmp_path / "out").double(), keep_probability(deltas)
    kept = found != 0
    torch.testing.assert_close(found[kept], (deltas.double() / probability)[kept], rtol=1e-6, atol=0)


def test_each_place_is_kept_at_its_rate_and_the_expectation_is_the_task_vector(tmp_path: Path) -> None:
    deltas = torch.randn(20_000, 3, generator=torch.Generator().manual_seed(1))
    found = merged(of_zeros(tmp_path, [deltas]), tmp_path / "out")
    order = deltas.abs().argsort(dim=1)
    rates = (found != 0).gather(1, order).double().mean(dim=0)
    assert rates.tolist() == pytest.approx([0.5, 0.7, 0.9], abs=0.015)
    slope = float((found * deltas).sum() / (deltas**2).sum())
    assert slope == pytest.approx(1.0, abs=0.01)


def test_rows_longer_than_a_step_of_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deltas = torch.randn(2, 200_000, generator=torch.Generator().manual_seed(2))
    models = of_zeros(tmp_path, [deltas])
    found = merged(models, tmp_path / "out")
    order = deltas.abs().argsort(dim=1)
    rates = (found != 0).gather(1, order).double().view(2, 4, -1).mean(dim=2)
    assert rates.flatten().tolist() == pytest.approx([0.55, 0.65, 0.75, 0.85] * 2, abs=0.01)
    monkeypatch.setattr(running, "EAGER_ELEMENTS", 1000)
    assert torch.equal(merged(models, tmp_path / "small"), found)


def test_an_element_alone_in_its_row_is_kept_at_the_mean_rate(tmp_path: Path) -> None:
    found = merged(of_zeros(tmp_path, [torch.ones(30_000, 1)]), tmp_path / "out")
    assert float((found != 0).double().mean()) == pytest.approx(0.7, abs=0.01)
    assert torch.unique(found).tolist() == pytest.approx([0.0, 1 / 0.7])


def test_signs_are_elected_as_in_ties(tmp_path: Path) -> None:
    models = of_zeros(tmp_path, [torch.full((1000, 5), 1.0), torch.full((1000, 5), -3.0)])
    found = merged(models, tmp_path / "out", method="della")
    # Where the second was kept its mass wins; elsewhere the first, if it was kept.
    assert float((found < 0).double().mean()) == pytest.approx(0.7, abs=0.03)
    assert float((found > 0).double().mean()) == pytest.approx(0.3 * 0.7, abs=0.03)
