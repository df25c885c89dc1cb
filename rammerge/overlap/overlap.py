"""Task-vector overlap: which elements each agent changed, alone or with others (RAM paper Sec. 3, 64-bit counts)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from rammerge.numerics.masks import Mask
from rammerge.overlap.advice import alike, frozen
from rammerge.overlap.gram import Gram
from rammerge.overlap.ratio import overlap_ratio
from rammerge.system.tables import Shown, Table, percent

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


@dataclass(frozen=True, repr=False)
class Overlap(Shown):
    """Overlap of N agents. It prints as tables, here and in notebooks.

    Attributes:
        agents: their names, in the recipe's order.
        mask: what counted as changed.
        elements: float elements of the model, tied tensors once.
        by_tensor: tensor -> [agent][k - 1] = elements that this agent and k - 1 others changed.
        densities: per agent, if they were measured.
        gram: the task vectors' inner products, if they were measured.
    """

    agents: tuple[str, ...]
    mask: Mask
    elements: int
    by_tensor: Mapping[str, Sequence[Sequence[int]]]
    densities: Mapping[str, Densities] = field(default_factory=dict)
    gram: Gram | None = None

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

    def rows(self) -> list[dict[str, Any]]:
        """Return one flat row for each agent, as data frames take them.

        `with_k` counts the elements that k other agents changed too, and `above_E` is the share with |delta| > E.
        """
        rows = []
        for name, row in self.summary().items():
            rho = math.inf if row["rho"] is None else row["rho"]
            counts = {f"with_{k}": count for k, count in enumerate(row.pop("co_active"))}
            found = self.densities.get(name)
            above = {f"above_{epsilon}": share for epsilon, share in found.above.items()} if found else {}
            more = {"relative": found.relative, "exact": found.exact} if found else {}
            rows.append({"agent": name, **row, "rho": rho, **counts, **above, **more})
        return rows

    def tables(self) -> list[Table]:
        """Return how densely each agent changed the base, alone and with others; and the densities, if measured."""
        others = [f"with {k}" for k in range(1, len(self.agents))]
        rows = []
        for name, row in self.summary().items():
            shares = [percent(count / row["active"] if row["active"] else None) for count in row["co_active"]]
            rho = "inf" if row["rho"] is None else f"{row['rho']:.3f}"
            rows.append([name, percent(row["density"]), f"{row['active']:,}", *shares, rho])
        overlap = Table(["agent", "density", "changed", "unique", *others, "rho"], rows, "Overlap")
        compared = [self._cosine_table(self.gram)] if self.gram and len(self.agents) > 1 else []
        return [overlap, *compared, *([self._density_table()] if self.densities else [])]

    def note(self) -> str:
        """Return the sentence that says what was counted."""
        rule = self.mask
        return f"{self.elements:,} elements; changed means mask {rule.mode}, threshold {rule.threshold:g}"

    def warnings(self) -> list[str]:
        """Return what the user should know of these agents, one sentence each."""
        counts = zip(self.agents, self.histogram(), strict=True)
        fits = poor_fits({name: (sum(row), row[0]) for name, row in counts}, self.elements)
        return [*fits, *(alike(self.gram) if self.gram else []), *frozen(self.agents, self.by_tensor)]

    def parts(self) -> list[Table | str]:
        """Return what a shell or a notebook shows."""
        return [*self.tables(), self.note(), *(f"warning: {warning}" for warning in self.warnings())]

    def _cosine_table(self, gram: Gram) -> Table:
        rows = [
            [name, *("-" if cosine is None else f"{cosine:.4f}" for cosine in row)]
            for name, row in zip(self.agents, gram.cosines(), strict=True)
        ]
        return Table(["agent", *self.agents], rows, "Cosine of the task vectors")

    def _density_table(self) -> Table:
        epsilons = next(iter(self.densities.values())).above
        rows = []
        for name, found in self.densities.items():
            shares = [percent(share) for share in (*found.above.values(), found.relative, found.exact)]
            rows.append([name, ", ".join(found.dtypes), *shares])
        columns = ["agent", "stored as", *(f"> {epsilon}" for epsilon in epsilons), "> 0.1 %", "bits"]
        return Table(columns, rows, "Density by rule")

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON, with the summary for readers that want no arithmetic."""
        return {
            "agents": list(self.agents),
            "mask": asdict(self.mask),
            "elements": self.elements,
            "summary": self.summary(),
            "cosine": None if self.gram is None else self.gram.cosines(),
            "densities": {name: asdict(value) for name, value in self.densities.items()},
            "by_tensor": {name: [list(row) for row in rows] for name, rows in self.by_tensor.items()},
            "gram": None if self.gram is None else self.gram.to_json(),
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
            gram=None if content["gram"] is None else Gram.from_json(content["gram"]),
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
