"""The element-wise methods in plain numpy on whole tensors, written from their formulas and not from the engine's code.

Task vectors and comparisons are float32, as in the reference codes; what is added and multiplied is float64. `taus` are
the task vectors of one tensor, one for each agent; all functions return the update of the base.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Vectors = Sequence[npt.NDArray[np.float32]]


def _kept(taus: Vectors, keep: Sequence[npt.NDArray[np.bool_]]) -> list[Array]:
    return [np.where(mask, tau, 0).astype(np.float64) for tau, mask in zip(taus, keep, strict=True)]


def _ascending(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.sort(np.abs(values).ravel())


def without_smallest(tau: npt.NDArray[np.float32], share: float) -> npt.NDArray[np.bool_]:
    """Return where |tau| is at least its smallest after int(n * share) others."""
    ranked = _ascending(tau)
    return np.abs(tau) >= (ranked[int(ranked.size * share)] if ranked.size else 0)


def breadcrumbs(taus: Vectors, smallest: float, largest: float, scale: float) -> Array:
    """Return the scaled sum without the int(n * smallest) smallest and the int(n * largest) largest of each tensor."""
    keep = []
    for tau in taus:
        ranked = _ascending(tau)
        most = ranked[ranked.size - 1 - int(ranked.size * largest)] if ranked.size else 0
        keep.append(without_smallest(tau, smallest) & (np.abs(tau) <= most))
    merged: Array = scale * np.sum(_kept(taus, keep), axis=0)
    return merged


def dare_magnitude(taus: Vectors, drop_rate: float, rescale: bool, scale: float) -> Array:
    """Return the scaled sum without the int(n * drop_rate) smallest of each tensor."""
    kept = _kept(taus, [without_smallest(tau, drop_rate) for tau in taus])
    merged: Array = scale * np.sum(kept, axis=0) / ((1 - drop_rate) if rescale else 1)
    return merged


def localize_and_stitch(taus: Vectors, limits: Sequence[float], scale: float) -> Array:
    """Return the mean, over the agents whose |tau| reaches their limit and is not zero, of tau."""
    keep = [(np.abs(tau) >= limit) & (tau != 0) for tau, limit in zip(taus, limits, strict=True)]
    merged: Array = scale * np.sum(_kept(taus, keep), axis=0) / np.maximum(np.sum(keep, axis=0), 1)
    return merged


def largest(parts: Sequence[npt.NDArray[np.float32]], density: float) -> float:
    """Return the (int(n * density) + 1)-th largest magnitude in all `parts` together."""
    ranked = np.concatenate([_ascending(part) for part in parts])
    return float(np.sort(ranked)[::-1][min(ranked.size, int(ranked.size * density) + 1) - 1]) if ranked.size else 0.0


def consensus(taus: Vectors, selectivity: float, agreeing: int, scale: float) -> Array:
    """Return the sum where at least `agreeing` agents have |tau_t| > selectivity * |sum - tau_t|."""
    added = _added(taus)
    masks = [np.abs(tau) > np.float32(selectivity) * np.abs(added - tau) for tau in taus]
    enough = np.sum(masks, axis=0) >= min(agreeing, len(taus))
    merged: Array = scale * np.where(enough, np.sum([tau.astype(np.float64) for tau in taus], axis=0), 0)
    return merged


def ram_ties(taus: Vectors, epsilon: float, drop_rate: float, scale: float) -> Array:
    """Return RAM's unique changes, and of each agent's shared ones the largest that agree with the elected sign."""
    active = [np.abs(tau) > np.float32(epsilon) for tau in taus]
    changes = _kept(taus, active)
    shared = np.sum(active, axis=0) >= 2
    pruned = []
    for change in changes:
        ranked = np.sort(np.abs(change[shared]))
        smallest = int(drop_rate * ranked.size)
        limit = ranked[smallest - 1] if smallest else 0.0
        pruned.append(np.where(np.abs(change) >= limit, change, 0))
    sign = np.sign(np.sum(pruned, axis=0))
    agreeing = [np.where(np.sign(change) == sign, change, 0) for change in pruned]
    count = np.maximum(np.sum([change != 0 for change in agreeing], axis=0), 1)
    merged: Array = np.where(shared, scale * np.sum(agreeing, axis=0) / count, np.sum(changes, axis=0))
    return merged


def sce(taus: Vectors, select: float, scale: float) -> Array:
    """Return the mean, by weights, of the selected changes whose sign is that of the selected changes' sum."""
    agents = len(taus)
    mean = _added(taus) * np.float32(1 / agents)
    variance = _added([(tau - mean) * (tau - mean) for tau in taus]) * np.float32(1 / agents)
    ranked = np.sort(variance[variance > 0])[::-1]
    keep = variance >= (ranked[max(1, int(select * ranked.size)) - 1] if select < 1 and ranked.size else 0)
    kept = _kept(taus, [keep] * agents)
    energy = np.array([np.mean(tau**2) if tau.size else 0.0 for tau in kept])
    weights = energy / energy.sum() if energy.sum() else np.full(agents, 1 / agents)
    sign = np.where(_added([tau.astype(np.float32) for tau in kept]) >= 0, 1.0, -1.0)
    agreeing = [np.where(tau * sign > 0, tau, 0) for tau in kept]
    share = np.sum([weight * (tau != 0) for weight, tau in zip(weights, agreeing, strict=True)], axis=0)
    summed = np.sum([weight * tau for weight, tau in zip(weights, agreeing, strict=True)], axis=0)
    merged: Array = scale * summed / np.where(share > 0, share, 1)
    return merged


def _added(vectors: Vectors) -> npt.NDArray[np.float32]:
    added = vectors[0]
    for vector in vectors[1:]:
        added = added + vector
    return added
