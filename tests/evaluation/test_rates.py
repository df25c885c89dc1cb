"""Contract: gates promote too early, and refuse too often, no more often than their intervals say, also in clusters.

A gate looks at the lower limit of a 95 % interval, so it may be wrong in 2.5 % of the runs of a model that is exactly
as bad as it must not be; and it passes in 80 % of the runs a model that is better by what power promises to detect.
"""

import numpy as np
import pytest

from evaluation.power import Items, detectable_difference
from evaluation.statistics import comparing
from tests.evaluation.simulated import Truth, chance_above

DRAWS = 1000
# Of 2.5 %, three standard errors of a simulation.
SLACK = 3 * (0.025 * 0.975 / DRAWS) ** 0.5


@pytest.fixture(autouse=True)
def _without_p_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gates do not look at p-values, which take longer than everything else."""
    monkeypatch.setattr(comparing, "sign_flip_p", lambda *_, **__: 1.0)


@pytest.mark.parametrize("n", [16, 60])
@pytest.mark.parametrize("margin", [0.0, 0.02, 0.1])
@pytest.mark.parametrize("changed", [0.1, 0.4])
def test_a_model_at_the_margin_passes_rarely(n: int, margin: float, changed: float) -> None:
    assert chance_above(-margin, n, (changed - margin) / 2, (changed + margin) / 2) < 0.03


@pytest.mark.parametrize(("n", "changed"), [(16, 0.8), (60, 0.3), (60, 0.6)])
def test_a_model_that_is_better_by_what_is_detectable_passes_as_often_as_promised(n: int, changed: float) -> None:
    gain = detectable_difference([Items(n)], [changed])
    assert gain is not None
    assert chance_above(0.0, n, (changed + gain) / 2, (changed - gain) / 2) == pytest.approx(0.8, abs=0.08)


CLUSTERED = [
    Truth(0.1, 0.1, clusters=16, size=1, correlation=0.0),
    Truth(0.2, 0.2, clusters=6, size=8, correlation=0.3),
    Truth(0.08, 0.1, clusters=16, size=10, correlation=0.2),
    Truth(0.1, 0.1, clusters=40, size=8, correlation=0.5),
    Truth(0.1, 0.1, clusters=16, size=1, correlation=0.4, answers=5),
]


@pytest.mark.parametrize("truth", CLUSTERED)
def test_related_items_do_not_promote_more_often(truth: Truth) -> None:
    rng = np.random.default_rng(1)
    found = [truth.compare(rng) for _ in range(DRAWS)]
    assert np.mean([difference.low > truth.difference for difference in found]) < 0.025 + SLACK
    assert np.mean([difference.high < truth.difference for difference in found]) < 0.025 + SLACK


def test_taken_for_independent_they_would() -> None:
    truth, rng = CLUSTERED[3], np.random.default_rng(2)
    low = [truth.compare(rng, clustered=False).low for _ in range(DRAWS)]
    assert np.mean(np.array(low) > truth.difference) > 0.1


def test_a_better_model_passes_on_related_items_as_often_as_promised() -> None:
    clusters, size, changed = 30, 8, 0.3
    gain = detectable_difference([Items(clusters * size, (size,) * clusters)], [changed])
    assert gain is not None
    truth = Truth((changed + gain) / 2, (changed - gain) / 2, clusters, size, correlation=0.2)
    rng = np.random.default_rng(3)
    assert np.mean([truth.compare(rng).low > 0 for _ in range(DRAWS)]) == pytest.approx(0.8, abs=0.08)


def test_agreement_of_few_clusters_proves_little() -> None:
    """A model that fails one cluster in twelve as a whole is not taken for equal where no cluster shows it."""
    rng, clusters, size = np.random.default_rng(4), 20, 10
    labels = np.repeat(np.arange(clusters), size).tolist()
    passed = 0
    for _ in range(DRAWS):
        failed = np.repeat((rng.random(clusters) < 1 / 12).astype(float), size)
        difference = comparing.paired_difference(np.zeros(clusters * size), failed, clusters=labels)
        passed += difference.low > -1 / 12
    assert passed / DRAWS < 0.025 + SLACK


def test_a_variant_that_equals_the_best_agents_seldom_beats_every_agent() -> None:
    """Each agent at the level of one comparison is enough: to pass, all of them have to be wrong at once."""
    rng, n = np.random.default_rng(5), 60
    passed = 0
    for _ in range(DRAWS):
        ours, *agents = (rng.random((4, n)) < 0.6).astype(float)
        passed += all(comparing.paired_difference(ours, agent).low > 0 for agent in agents)
    assert passed / DRAWS < 0.025
