"""What overlap prints: tables of pairs of agents, of parts of the model, of densities and of ranks."""

from collections.abc import Mapping, Sequence

from rammerge.overlap.densities import Densities
from rammerge.overlap.gram import Gram
from rammerge.overlap.pairs import Pairs
from rammerge.overlap.parts import Part
from rammerge.overlap.ranks import Ranks
from rammerge.system.tables import Table, percent


def cosine_table(gram: Gram) -> Table:
    """Return the cosines of the task vectors."""
    rows = [[name, *map(_cosine, row)] for name, row in zip(gram.agents, gram.cosines(), strict=True)]
    return Table(["agent", *gram.agents], rows, "Cosine of the task vectors")


def pair_table(pairs: Pairs, by_chance: Sequence[float]) -> Table:
    """Return what each two agents changed together."""
    rows = []
    for names, (both, agree), expected in zip(pairs.names(), pairs.counts(), by_chance, strict=True):
        times = f"{both / expected:.1f} x" if expected else "-"
        rows.append([", ".join(names), f"{both:,}", f"{expected:,.0f}", times, percent(agree / both if both else None)])
    return Table(["both changed", "elements", "by chance", "times chance", "same sign"], rows, "Pairs of agents")


def part_table(kind: str, parts: Sequence[Part], agents: Sequence[str]) -> Table:
    """Return what agents changed in each layer or each kind of module: densities, what they share, and directions."""
    rows = []
    for part in parts:
        shares = [*part.densities, part.shared_share, part.chance_share, part.same_sign]
        rows.append([part.name, *map(percent, shares), _cosine(part.cosine)])
    return Table([kind, *agents, "shared", "by chance", "same sign", "cosine"], rows, f"Density by {kind}")


def rank_table(ranks: Ranks, modules: Sequence[Part]) -> Table:
    """Return how many directions the changes of each agent have, of as many as there could be."""
    rows = [[part.name, *map(percent, part.ranks)] for part in modules if any(part.ranks)]
    rows.append(["all", *map(percent, ranks.shares())])
    rows.append(["stable rank", *("-" if stable is None else f"{stable:.1f}" for stable in ranks.stable())])
    return Table(["module", *ranks.agents], rows, "Effective rank of the changes")


def density_table(densities: Mapping[str, Densities]) -> Table:
    """Return each agent's density by several rules."""
    epsilons = next(iter(densities.values())).above
    rows = []
    for name, found in densities.items():
        shares = [percent(share) for share in (*found.above.values(), found.relative, found.exact, found.hidden)]
        rows.append([name, ", ".join(found.dtypes), *shares])
    columns = ["agent", "dtype", *(f"> {epsilon}" for epsilon in epsilons), "> 0.1 %", "bits", "bf16 hides"]
    return Table(columns, rows, "Density by rule")


def _cosine(cosine: float | None) -> str:
    return "-" if cosine is None else f"{cosine:.4f}"
