"""Task-vector overlap: which elements each agent changed, alone or with others (RAM paper Sec. 3, 64-bit counts)."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from rammerge.numerics.masks import Mask
from rammerge.overlap.advice import alike, frozen, poor_fits
from rammerge.overlap.advisor import Features, advice_for
from rammerge.overlap.chance import both_by_chance
from rammerge.overlap.densities import Densities
from rammerge.overlap.gram import Gram
from rammerge.overlap.pairs import Pairs
from rammerge.overlap.parts import LAYERS_SHOWN, Part, build_part, grouped, layers_of, module_of, number_of
from rammerge.overlap.ranks import Ranks
from rammerge.overlap.ratio import overlap_ratio
from rammerge.overlap.showing import cosine_table, density_table, pair_table, part_table, rank_table
from rammerge.system.tables import Shown, Table, percent


@dataclass(frozen=True, repr=False)
class Overlap(Shown):
    """Overlap of N agents. It prints as tables, here and in notebooks.

    Attributes:
        agents: their names, in the recipe's order.
        mask: what counted as changed.
        sizes: float tensor -> its elements, tied tensors once.
        by_tensor: tensor -> [agent][k - 1] = elements that this agent and k - 1 others changed.
        densities: per agent, if they were measured.
        gram: the task vectors' inner products, if they were measured.
        pairs: what each two agents changed together, if that was counted.
        ranks: how many directions each agent's changes have, if that was measured.
    """

    agents: tuple[str, ...]
    mask: Mask
    sizes: Mapping[str, int]
    by_tensor: Mapping[str, Sequence[Sequence[int]]]
    densities: Mapping[str, Densities] = field(default_factory=dict)
    gram: Gram | None = None
    pairs: Pairs | None = None
    ranks: Ranks | None = None

    @property
    def elements(self) -> int:
        """Float elements of the model."""
        return sum(self.sizes.values())

    def active(self, tensor: str) -> list[int]:
        """Return how many elements of a tensor each agent changed."""
        return [sum(row) for row in self.by_tensor[tensor]]

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
            more = {"relative": found.relative, "exact": found.exact, "hidden": found.hidden} if found else {}
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
        tables = [overlap]
        if self.gram and len(self.agents) > 1:
            tables.append(cosine_table(self.gram))
        if self.pairs and len(self.agents) > 1:
            tables.append(pair_table(self.pairs, self.both_by_chance()))
        if self.gram:
            tables.append(part_table("module", self.modules(), self.agents))
            tables.append(part_table("layer", self.layers(), self.agents))
        if self.ranks:
            tables.append(rank_table(self.ranks, self.modules()))
        return [*tables, *([density_table(self.densities)] if self.densities else [])]

    def both_by_chance(self) -> list[float]:
        """Return how many elements each two agents i < j would both change if they had chosen independently."""
        found = [both_by_chance(self.active(name), self.sizes[name]) for name in self.by_tensor]
        return [math.fsum(column) for column in zip(*found, strict=True)]

    def whole(self) -> Part:
        """Return what agents changed in the whole model."""
        return self._parts(lambda _: "whole model")[0]

    def features(self) -> Features | None:
        """Return what the advisor looks at; None if no two agents changed the same, or it was not measured."""
        whole = self.whole()
        shares = (whole.shared_share, whole.chance_share, whole.cosine, whole.same_sign)
        if any(share is None for share in shares):
            return None
        return Features(math.fsum(whole.densities) / len(whole.densities), *(share or 0.0 for share in shares))

    def modules(self) -> list[Part]:
        """Return what agents changed in each kind of module."""
        return self._parts(module_of)

    def layers(self, most: int = LAYERS_SHOWN) -> list[Part]:
        """Return what agents changed in each layer, or in at most `most` ranges of layers, and outside of layers."""
        names = layers_of(list(self.by_tensor), most)
        found = self._parts(names.__getitem__)
        return sorted(found, key=lambda part: number_of(part.tensors[0]))

    def _parts(self, key: Callable[[str], str]) -> list[Part]:
        groups = grouped(list(self.by_tensor), key).items()
        measured = (self.sizes, self.by_tensor, self.gram, self.pairs, self.ranks)
        return [build_part(name, tensors, *measured) for name, tensors in groups]

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
        return [
            *self.tables(),
            self.note(),
            *advice_for(self.features()),
            *(f"warning: {said}" for said in self.warnings()),
        ]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON, with the summary for readers that want no arithmetic."""
        return {
            "agents": list(self.agents),
            "mask": asdict(self.mask),
            "elements": self.elements,
            "sizes": dict(self.sizes),
            "summary": self.summary(),
            "cosine": None if self.gram is None else self.gram.cosines(),
            "densities": {name: asdict(value) for name, value in self.densities.items()},
            "by_tensor": {name: [list(row) for row in rows] for name, rows in self.by_tensor.items()},
            "gram": None if self.gram is None else self.gram.to_json(),
            "pairs": None if self.pairs is None else self.pairs.to_json(),
            "ranks": None if self.ranks is None else self.ranks.to_json(),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Overlap":
        """Return what `to_json` wrote."""
        return cls(
            agents=tuple(content["agents"]),
            mask=Mask(**content["mask"]),
            sizes=content["sizes"],
            by_tensor=content["by_tensor"],
            densities={name: Densities(**value) for name, value in content["densities"].items()},
            gram=None if content["gram"] is None else Gram.from_json(content["gram"]),
            pairs=None if content["pairs"] is None else Pairs.from_json(content["pairs"]),
            ranks=None if content["ranks"] is None else Ranks.from_json(content["ranks"]),
        )
