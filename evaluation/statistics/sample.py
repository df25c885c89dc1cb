"""The scores of one suite, or the differences of two models there, as formulas take them."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluation.statistics.clustered import Design, design
from evaluation.statistics.estimates import Scores

Clusters = Sequence[Hashable]

# Less than scores differ by, and more than sums of the same numbers in a different order do.
NOISE = 1e-12


@dataclass(frozen=True)
class Sample:
    """The scores or differences of one suite, flat; where they are related, also the number of each one's cluster."""

    values: Scores
    items: int
    codes: NDArray[np.intp] | None

    @classmethod
    def of(cls, scores: Scores, clusters: Clusters | None) -> "Sample":
        """Return the sample of scores or differences, shape (n,) or (n, K); the answers to one item are a cluster."""
        items = len(scores)
        answers = 1 if scores.ndim == 1 else scores.shape[1]
        labels: Clusters | None = range(items) if clusters is None and answers > 1 else clusters
        if labels is None:
            return cls(scores.ravel(), items, None)
        if len(labels) != items:
            raise ValueError(f"each item needs its cluster: there are {items} items and {len(labels)} clusters")
        numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
        codes = np.array([numbers[label] for label in labels], dtype=np.intp)
        return cls(scores.ravel(), items, codes.repeat(answers))

    @classmethod
    def of_differences(cls, ours: ArrayLike, theirs: ArrayLike, clusters: Clusters | None) -> "Sample":
        """Return the sample of ours minus theirs; ValueError if they are not of the same items."""
        our_scores, their_scores = checked(ours), checked(theirs)
        if our_scores.shape != their_scores.shape:
            shapes = f"{our_scores.shape} and {their_scores.shape}"
            raise ValueError(f"paired scores need the same items and answers, not the shapes {shapes}")
        return cls.of(without_noise(our_scores - their_scores), clusters)

    @property
    def exchangeable(self) -> Scores:
        """The values whose signs are random if two models are alike; their mean is the mean."""
        if self.codes is None:
            return self.values
        sums = np.asarray(np.bincount(self.codes, self.values), dtype=np.float64)
        return sums * (len(sums) / len(self.values))

    def design(self, *, usual: float) -> Design | None:
        """Return what clusters make of the mean; None if all values are independent. Most values are `usual`."""
        return None if self.codes is None else design(self.values, self.codes, usual=usual)

    def effective(self, found: Design | None, confidence: float) -> float:
        """Return how many independent values tell as much as these."""
        return len(self.values) if found is None else found.effective(len(self.values), confidence)


def without_noise(differences: Scores) -> Scores:
    """Return differences with exactly 0 where two scores differ in their last bits only."""
    return np.where(np.abs(differences) < NOISE, 0.0, differences)


def checked(scores: ArrayLike) -> Scores:
    """Return scores as an array, shape (n,) or (n, K), float64; ValueError if they are none."""
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim not in (1, 2) or values.size == 0:
        raise ValueError(f"scores need the shape (n,) or (n, K) with n >= 1, not {values.shape}")
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("scores must lie in [0, 1]")
    return values


def is_binary(values: Scores) -> bool:
    """Tell whether all values are 0 or 1."""
    return bool(((values == 0) | (values == 1)).all())
