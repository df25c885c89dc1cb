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
    ranked = any(part.ranks for part in parts)
    columns = [kind, *agents, "shared", "by chance", "same sign", "cosine"]
    rows = []
    for part in parts:
        shares = [*part.densities, part.shared_share, part.chance_share, part.same_sign]
        ranks = [percent(share) for share in part.ranks] if ranked else []
        rows.append([part.name, *map(percent, shares), _cosine(part.cosine), *ranks])
    return Table([*columns, *(f"rank of {name}" for name in agents if ranked)], rows, f"Density by {kind}")


def rank_table(ranks: Ranks) -> Table:
    """Return how many directions the changes of each agent have."""
    rows = [
        [name, percent(share), "-" if stable is None else f"{stable:.1f}"]
        for name, share, stable in zip(ranks.agents, ranks.shares(), ranks.stable(), strict=True)
    ]
    return Table(["agent", "effective rank", "stable rank"], rows, "Rank of the changes")


def density_table(densities: Mapping[str, Densities]) -> Table:
    """Return each agent's density by several rules."""
    epsilons = next(iter(densities.values())).above
    rows = []
    for name, found in densities.items():
        shares = [percent(share) for share in (*found.above.values(), found.relative, found.exact, found.hidden)]
        rows.append([name, ", ".join(found.dtypes), *shares])
    columns = ["agent", "stored as", *(f"> {epsilon}" for epsilon in epsilons), "> 0.1 %", "bits", "bf16 hides"]
    return Table(columns, rows, "Density by rule")


def _cosine(cosine: float | None) -> str:
    return "-" if cosine is None else f"{cosine:.4f}"
