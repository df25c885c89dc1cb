"""What overlap and directions say about agents before any of them is merged, whatever the method."""

from collections.abc import Mapping, Sequence
from itertools import combinations

from rammerge.overlap.gram import Gram

# Runs of one domain with different seeds are far below this, copies that were trained a little further are above.
ALIKE = 0.99
MUCH = 0.01
# What makes an agent fit RAM poorly: changes of a larger share of the weights, or fewer of them that are its own.
DENSE, FEW_UNIQUE = 0.6, 0.01
_NAMED = 3


def alike(gram: Gram) -> list[str]:
    """Return a sentence for each two agents that moved almost the same way."""
    cosines = gram.cosines()
    return [
        f"agents '{gram.agents[i]}' and '{gram.agents[j]}' moved the same way (cosine {cosine:.4f}), so a sum counts "
        "their change twice; leave one out, or make them a group if they are checkpoints of one domain"
        for i, j in combinations(range(len(gram.agents)), 2)
        if (cosine := cosines[i][j]) is not None and cosine > ALIKE
    ]


def frozen(agents: Sequence[str], by_tensor: Mapping[str, Sequence[Sequence[int]]]) -> list[str]:
    """Return a sentence for each agent that left tensors untouched in which others changed much.

    Args:
        agents: their names.
        by_tensor: tensor -> [agent][k - 1] = elements that this agent and k - 1 others changed.
    """
    changed = {name: _changed_by_any(rows) for name, rows in by_tensor.items()}
    said = []
    for index, agent in enumerate(agents):
        untouched = [name for name, rows in by_tensor.items() if changed[name] and not sum(rows[index])]
        share = sum(changed[name] for name in untouched) / max(1, sum(changed.values()))
        if share > MUCH:
            listed = ", ".join(untouched[:_NAMED]) + (", ..." if len(untouched) > _NAMED else "")
            tensors = f"{len(untouched)} tensor{'s' * (len(untouched) > 1)}"
            said.append(
                f"agent '{agent}' changed nothing in {tensors} with {share:.0%} of all changes ({listed}); if its "
                "training froze them, give it no say there: with `tensors`, copy them or merge them differently"
            )
    return said


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


def _changed_by_any(rows: Sequence[Sequence[int]]) -> int:
    """Return how many elements any agent changed: those that k agents changed are counted k times."""
    return sum(sum(column) // count for count, column in enumerate(zip(*rows, strict=True), start=1))
