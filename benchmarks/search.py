"""The regret of a search's schedule, simulated: `python -m benchmarks.search`. It takes seconds and no model.

Candidates have planted abilities, items planted difficulties, and a candidate answers an item rightly with the
probability of the Rasch model. All candidates meet the same items with the same luck, as merges of the same agents do:
two that are nearly equal answer nearly the same items. The regret is by how much the true score of the chosen candidate
is below that of the best one, in percentage points.

Three ways to spend the same number of answers are compared: the schedule; every item for as many candidates as that
pays for; and an equal share of the items for all candidates.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.search.schedule import answers, left, slices

Scores = NDArray[np.float64]
# Of the candidates' true scores, about: merges of the same agents under various parameters.
_ABILITY, _SPREAD, _DIFFICULTIES = 1.5, 0.5, 2.0
_RULED_BY_LUCK = 0.5


@dataclass(frozen=True)
class World:
    """Planted candidates: what each answers, shape (candidates, items), and its true score, shape (candidates,)."""

    answered: Scores
    truth: Scores


def plant(candidates: int, items: int, rng: np.random.Generator) -> World:
    """Return candidates that have met items."""
    ability = rng.normal(_ABILITY, _SPREAD, candidates)
    difficulty = rng.normal(0.0, _DIFFICULTIES, items)
    chance = 1 / (1 + np.exp(difficulty - ability[:, None]))
    shared, own = rng.random(items), rng.random((candidates, items))
    luck = np.where(rng.random((candidates, items)) < _RULED_BY_LUCK, own, shared)
    # The true score is over all items that there could be, not over these.
    every = rng.normal(0.0, _DIFFICULTIES, 20_000)
    truth = (1 / (1 + np.exp(every - ability[:, None]))).mean(axis=1)
    return World((luck < chance).astype(np.float64), truth)


def by_schedule(world: World) -> int:
    """Return the candidate that a search chooses."""
    candidates, items = world.answered.shape
    alive = np.arange(candidates)
    for count, (_, end) in zip(left(candidates), slices(items), strict=True):
        alive = alive[:count]
        means = world.answered[alive, :end].mean(axis=1)
        alive = alive[np.argsort(-means, kind="stable")]
    return int(alive[0])


def by_every_item(world: World) -> int:
    """Return the best of the first candidates, as many as can be asked every item for the answers of a search."""
    candidates, items = world.answered.shape
    asked = max(1, answers(candidates, [items]) // items)
    return int(np.argmax(world.answered[:asked].mean(axis=1)))


def by_equal_shares(world: World) -> int:
    """Return the best of all candidates on as many items as can be asked of all for the answers of a search."""
    candidates, items = world.answered.shape
    return int(np.argmax(world.answered[:, : answers(candidates, [items]) // candidates].mean(axis=1)))


WAYS: dict[str, Callable[[World], int]] = {
    "schedule": by_schedule,
    "every item, fewer candidates": by_every_item,
    "equal shares": by_equal_shares,
    "every item, all candidates": lambda world: int(np.argmax(world.answered.mean(axis=1))),
}


def regrets(candidates: int, items: int, worlds: int, seed: int = 0) -> dict[str, Scores]:
    """Return the regret of each way in each of `worlds` worlds, in percentage points."""
    rng = np.random.default_rng(seed)
    planted = [plant(candidates, items, rng) for _ in range(worlds)]
    return {
        name: np.array([100 * (world.truth.max() - world.truth[choose(world)]) for world in planted])
        for name, choose in WAYS.items()
    }


def main() -> None:
    """Print the mean regret, with its standard error, of each way for several searches."""
    print(f"{'candidates':>10} {'items':>6} {'answers':>8}  " + "  ".join(f"{name:>28}" for name in WAYS))
    for candidates, items in ((10, 600), (40, 600), (40, 2400), (80, 600)):
        found = regrets(candidates, items, worlds=400)
        cells = [f"{regret.mean():.2f} ± {regret.std() / len(regret) ** 0.5:.2f}" for regret in found.values()]
        share = answers(candidates, [items]) / (candidates * items)
        print(f"{candidates:>10} {items:>6} {share:>8.0%}  " + "  ".join(f"{cell:>28}" for cell in cells))


if __name__ == "__main__":
    main()
