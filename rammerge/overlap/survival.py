"""What the output dtype keeps of a merge, counted element by element."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# If a smaller share of the elements differs from the reference, the output dtype has erased what the method adds to it.
DISTINCT_SHARE = 0.01


@dataclass(frozen=True)
class AgentSurvival:
    """The part of one agent's changes that a merge keeps.

    Attributes:
        active: elements that it changed.
        unique: those that no other agent changed.
        survived: active elements whose merged value differs from the base's in the output dtype.
    """

    active: int
    unique: int
    survived: int

    @property
    def shared(self) -> int:
        """Elements that other agents changed too."""
        return self.active - self.unique

    @property
    def survived_share(self) -> float | None:
        """Share of the active elements that survived; None if there are none."""
        return _share(self.survived, self.active)


@dataclass(frozen=True)
class Survival:
    """How much of a merge the output dtype kept; integer counts over all float elements.

    Attributes:
        agents: by name, in the recipe's order.
        changed: elements that the merge changed in float32.
        kept: elements whose merged value differs from the base's in the output dtype.
        reference: the method that the merge's method improves on (`ram` for RAM+), if any.
        distinct: elements whose merged value differs from the reference's in the output dtype, zero without one.
    """

    agents: Mapping[str, AgentSurvival]
    changed: int
    kept: int
    reference: str | None = None
    distinct: int = 0

    @classmethod
    def from_counts(cls, counts: Sequence[int], agents: Sequence[str], reference: str | None) -> "Survival":
        """Read the sums of the counts that the engine's MergeBlock makes."""
        n = len(agents)
        active, unique, survived = (counts[start : start + n] for start in range(0, 3 * n, n))
        changed, kept, *distinct = counts[3 * n :]
        rows = map(AgentSurvival, active, unique, survived)
        return cls(dict(zip(agents, rows, strict=True)), changed, kept, reference, sum(distinct))

    @property
    def kept_share(self) -> float | None:
        """Share of the changed elements that are kept; None if the merge changed nothing."""
        return _share(self.kept, self.changed)

    @property
    def distinct_share(self) -> float | None:
        """Share of the unique elements that differ from the reference; None if there are none."""
        return _share(self.distinct, sum(agent.unique for agent in self.agents.values()))

    def losses(self, method: str, dtype: str) -> list[str]:
        """Return a sentence for each thing that the cast to the output dtype erased."""
        losses = []
        if self.reference and self.distinct_share is not None and self.distinct_share < DISTINCT_SHARE:
            losses.append(
                f"in {dtype} this {method} differs from plain {self.reference} in {self.distinct_share:.2%} of the "
                "unique elements: rounding erases its rescaling; use dtype float32 or rounding stochastic"
            )
        if self.kept_share is not None and self.kept_share < 0.5:
            losses.append(
                f"only {self.kept_share:.0%} of the merged change survives the cast to {dtype}; use dtype float32 or "
                "rounding stochastic"
            )
        return losses

    def to_json(self) -> dict[str, Any]:
        """Return the counts and shares as plain JSON."""
        report: dict[str, Any] = {
            "agents": {
                name: {
                    "active": agent.active,
                    "unique": agent.unique,
                    "shared": agent.shared,
                    "survived": agent.survived,
                    "survived_share": agent.survived_share,
                }
                for name, agent in self.agents.items()
            },
            "changed": self.changed,
            "kept": self.kept,
            "kept_share": self.kept_share,
        }
        if self.reference:
            report[f"distinct_from_{self.reference}"] = self.distinct
            report[f"distinct_from_{self.reference}_share"] = self.distinct_share
        return report

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Survival":
        """Return what `to_json` wrote."""
        agents = {
            name: AgentSurvival(row["active"], row["unique"], row["survived"])
            for name, row in content["agents"].items()
        }
        prefix = "distinct_from_"
        reference = next((key for key in content if key.startswith(prefix) and f"{key}_share" in content), None)
        name, distinct = (reference.removeprefix(prefix), content[reference]) if reference else (None, 0)
        return cls(agents, content["changed"], content["kept"], name, distinct)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
