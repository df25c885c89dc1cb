"""Task-vector overlap: which elements each agent changed, alone or with others (RAM paper Sec. 3, 64-bit counts)."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from rammerge.numerics.masks import Mask
from rammerge.overlap.ratio import overlap_ratio

DENSE = 0.6
FEW_UNIQUE = 0.01


@dataclass(frozen=True)
class Densities:
    """Share of one agent's elements that changed, by several rules.

    Attributes:
        dtypes: stored dtype -> elements stored so.
        above: epsilon -> share with |delta| > epsilon.
        relative: share whose change exceeds 1e-3 of the weight.
        exact: share that differs once cast to the base's dtype.
    """

    dtypes: Mapping[str, int]
    above: Mapping[str, float]
    relative: float
    exact: float


@dataclass(frozen=True)
class Overlap:
    """Overlap of N agents.

    Attributes:
        agents: their names, in the recipe's order.
        mask: what counted as changed.
        elements: float elements of the model, tied tensors once.
        by_tensor: tensor -> [agent][k - 1] = elements that this agent and k - 1 others changed.
        densities: per agent, when they were asked for.
    """

    agents: tuple[str, ...]
    mask: Mask
    elements: int
    by_tensor: Mapping[str, Sequence[Sequence[int]]]
    densities: Mapping[str, Densities] = field(default_factory=dict)

    def histogram(self, tensor: str | None = None) -> list[list[int]]:
        """Return [agent][k - 1] for one tensor or (None) the whole model."""
        return [list(row) for row in (self._whole_model if tensor is None else self.by_tensor[tensor])]

    @cached_property
    def _whole_model(self) -> list[list[int]]:
        total = [[0] * len(self.agents) for _ in self.agents]
        for rows in self.by_tensor.values():
            total = [[x + y for x, y in zip(a, b, strict=True)] for a, b in zip(total, rows, strict=True)]
        return total

    def shared_and_unique(self, tensor: str | None = None) -> list[tuple[int, int]]:
        """Return (shared, unique) per agent, of one tensor or (None) the whole model."""
        return [(sum(row[1:]), row[0]) for row in self.histogram(tensor)]

    def summary(self) -> dict[str, dict[str, Any]]:
        """Return per agent: active, unique and shared elements, density, rho (null when infinite), co-active counts."""
        rows = {}
        for name, row in zip(self.agents, self.histogram(), strict=True):
            active, unique = sum(row), row[0]
            rho = overlap_ratio(active - unique, unique)
            rows[name] = {
                "active": active,
                "unique": unique,
                "shared": active - unique,
                "density": active / self.elements if self.elements else 0.0,
                "unique_share": unique / active if active else 0.0,
                "rho": rho if rho != float("inf") else None,
                "co_active": row,
            }
        return rows

    def warnings(self) -> list[str]:
        """Return what `poor_fits` says of these agents."""
        counts = zip(self.agents, self.histogram(), strict=True)
        return poor_fits({name: (sum(row), row[0]) for name, row in counts}, self.elements)

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON, with the summary for readers that want no arithmetic."""
        return {
            "agents": list(self.agents),
            "mask": asdict(self.mask),
            "elements": self.elements,
            "summary": self.summary(),
            "densities": {name: asdict(value) for name, value in self.densities.items()},
            "by_tensor": {name: [list(row) for row in rows] for name, rows in self.by_tensor.items()},
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Overlap":
        """Return what `to_json` wrote."""
        return cls(
            agents=tuple(content["agents"]),
            mask=Mask(**content["mask"]),
            elements=content["elements"],
            by_tensor=content["by_tensor"],
            densities={name: Densities(**value) for name, value in content["densities"].items()},
        )


def poor_fits(counts: Mapping[str, tuple[int, int]], elements: int) -> list[str]:
    """Return one sentence for each agent that RAM fits poorly, saying why.

    Args:
        counts: per agent, the elements that it changed, and those of them that no other agent changed.
        elements: float elements of the model.
    """
    found = []
    for name, (changed, unique) in counts.items():
        if changed > DENSE * elements:
            found.append(
                f"agent '{name}' changed {changed / elements:.0%} of the weights: RAM expects sparse updates, and a "
                "dense one (exported in float32, merged from LoRA, or trained with Adam in float32) leaves it little "
                "to separate; compare with task_arithmetic"
            )
        if len(counts) > 1 and unique < FEW_UNIQUE * changed:
            found.append(
                f"agent '{name}' shares all but {unique / changed:.1%} of its changes: for it RAM is close to "
                "averaging; compare with task_arithmetic"
            )
    return found
