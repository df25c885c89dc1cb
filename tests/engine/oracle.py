"""The paper's formulas in plain float64 numpy on whole tensors: slow, obvious, and independent of the engine's code.

Tensors are numpy float64 arrays; models are dicts of them. Masks use the paper's strict inequality, compared in float32
as in both reference codes.
"""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Model = dict[str, Array]


def masks(base: Array, agents: list[Array], epsilon: float) -> list[npt.NDArray[np.bool_]]:
    """Return where each agent changed the base."""
    deltas = [agent.astype(np.float32) - base.astype(np.float32) for agent in agents]
    return [np.abs(delta) > np.float32(epsilon) for delta in deltas]


def histogram(base: Model, agents: list[Model], epsilon: float, names: list[str]) -> list[list[int]]:
    """Return [agent][k - 1]: the number of elements that this agent and k - 1 others changed."""
    counts = [[0] * len(agents) for _ in agents]
    for name in names:
        active = masks(base[name], [agent[name] for agent in agents], epsilon)
        together = np.sum(active, axis=0)
        for agent, mask in enumerate(active):
            for k in range(1, len(agents) + 1):
                counts[agent][k - 1] += int(np.sum(mask & (together == k)))
    return counts


def lambdas(counts: list[list[int]], rule: str, r: float, alpha: float) -> list[float]:
    """Return each agent's factor: `ram`, `ram_plus` or `ram_plus_soft`."""
    factors = []
    for row in counts:
        unique, shared = row[0], sum(row[1:])
        rho = shared / unique if unique else (float("inf") if shared else 0.0)
        if rule == "ram":
            factors.append(1.0)
        elif rule == "ram_plus":
            factors.append(1 + r * min(max(rho, 0.0), alpha))
        else:
            factors.append(1 + r * (1.0 if rho == float("inf") else rho / (1 + rho)))
    return factors


def ram(
    base: Array,
    agents: list[Array],
    epsilon: float,
    factors: list[float],
    shared_exponent: float = 1.0,
    conflict_exponent: float = 1.0,
) -> Array:
    """Return the merged weights of one tensor."""
    deltas = [agent - base for agent in agents]
    active = masks(base, agents, epsilon)
    together = np.sum(active, axis=0)
    shared = np.sum([np.where(mask, delta, 0) for mask, delta in zip(active, deltas, strict=True)], axis=0)
    unique = np.sum(
        [factor * np.where(mask, delta, 0) for factor, mask, delta in zip(factors, active, deltas, strict=True)], axis=0
    )
    changes = [np.where(mask, delta, 0) for mask, delta in zip(active, deltas, strict=True)]
    conflict = (np.max(changes, axis=0) > 0) & (np.min(changes, axis=0) < 0)
    divisor = np.maximum(together, 1.0) ** np.where(conflict, conflict_exponent, shared_exponent)
    merged: Array = base + np.where(together == 0, 0, np.where(together == 1, unique, shared / divisor))
    return merged


def task_arithmetic(base: Array, agents: list[Array], scale: float) -> Array:
    """Return base + scale * sum of task vectors."""
    merged: Array = base + scale * np.sum([agent - base for agent in agents], axis=0)
    return merged


def ties(base: Model, agents: list[Model], density: float, scale: float, *, per_tensor: bool, mean: bool) -> Model:
    """Return TIES with the official trim: the int(d * density) + 1 largest stay, and where signs tie +1 is elected."""
    names = sorted(base)
    vectors = [
        {name: agent[name].astype(np.float32) - base[name].astype(np.float32) for name in names} for agent in agents
    ]

    def limit(values: npt.NDArray[np.float32]) -> float:
        if density >= 1 or not values.size:
            return 0.0
        return float(np.sort(np.abs(values))[::-1][min(values.size, int(values.size * density) + 1) - 1])

    merged = {}
    whole = [limit(np.concatenate([vector[name].ravel() for name in names])) for vector in vectors]
    for name in names:
        limits = [limit(vector[name].ravel()) for vector in vectors] if per_tensor else whole
        kept = [
            np.where(np.abs(vector[name]) >= bound, vector[name], 0).astype(np.float64)
            for vector, bound in zip(vectors, limits, strict=True)
        ]
        sign = np.where(np.sum(kept, axis=0) >= 0, 1.0, -1.0)
        agreeing = [np.where(values * sign > 0, values, 0) for values in kept]
        count = np.maximum(np.sum([values != 0 for values in agreeing], axis=0), 1) if mean else 1
        merged[name] = base[name] + scale * np.sum(agreeing, axis=0) / count
    return merged
