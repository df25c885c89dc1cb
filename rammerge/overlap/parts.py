"""Parts of a model, such as its layers or its kinds of modules, and what agents changed in each."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from rammerge.overlap.chance import shared_by_chance
from rammerge.overlap.gram import Gram
from rammerge.overlap.pairs import Pairs
from rammerge.overlap.ranks import Ranks

_LAYER = re.compile(r"\.(\d+)\.")
OUTSIDE = "outside"
# More rows than this are hard to read in a terminal.
LAYERS_SHOWN = 8


@dataclass(frozen=True)
class Part:
    """What agents changed in some tensors.

    Attributes:
        name: what the tensors are: a layer, a kind of module.
        tensors: their names.
        elements: of these tensors.
        active: elements that each agent changed.
        shared: those that another agent changed too, added over the agents.
        by_chance: how many these would be if agents had chosen independently, tensor by tensor.
        same_sign: share of the elements that two agents changed, over all pairs, whose changes have the same sign;
            None if there are none, or if that was not counted.
        cosine: mean cosine of each two agents' task vectors there; None if none is defined or measured.
        ranks: each agent's effective rank as a share of the most that its matrices there could have; None if it
            changed none of them, empty if that was not measured.
    """

    name: str
    tensors: tuple[str, ...]
    elements: int
    active: tuple[int, ...]
    shared: int
    by_chance: float
    same_sign: float | None
    cosine: float | None
    ranks: tuple[float | None, ...] = ()

    @property
    def densities(self) -> list[float]:
        """Share of the elements that each agent changed."""
        return [count / self.elements if self.elements else 0.0 for count in self.active]

    @property
    def shared_share(self) -> float | None:
        """Share of the changes that another agent made too."""
        return self.shared / sum(self.active) if sum(self.active) else None

    @property
    def chance_share(self) -> float | None:
        """Share of the changes that another agent would have made too by chance."""
        return self.by_chance / sum(self.active) if sum(self.active) else None


def build_part(
    name: str,
    tensors: Sequence[str],
    sizes: Mapping[str, int],
    by_tensor: Mapping[str, Sequence[Sequence[int]]],
    gram: Gram | None,
    pairs: Pairs | None,
    ranks: Ranks | None,
) -> Part:
    """Return what agents changed in `tensors`; the other arguments are those of `Overlap`."""
    active = [[sum(row) for row in by_tensor[each]] for each in tensors]
    chance = [shared_by_chance(counts, sizes[each]) for each, counts in zip(tensors, active, strict=True)]
    both = [sum(column) for column in zip(*pairs.counts(tensors), strict=True)] if pairs else []
    return Part(
        name=name,
        tensors=tuple(tensors),
        elements=sum(sizes[each] for each in tensors),
        active=tuple(map(sum, zip(*active, strict=True))),
        shared=sum(sum(row[1:]) for each in tensors for row in by_tensor[each]),
        by_chance=math.fsum(count for counts in chance for count in counts),
        same_sign=both[1] / both[0] if both and both[0] else None,
        cosine=_mean_cosine(gram, tensors) if gram else None,
        ranks=tuple(ranks.shares(tensors)) if ranks else (),
    )


def _mean_cosine(gram: Gram, tensors: Sequence[str]) -> float | None:
    found = gram.cosines(tensors)
    upper = [found[i][j] for i, j in combinations(range(len(found)), 2)]
    known = [cosine for cosine in upper if cosine is not None]
    return math.fsum(known) / len(known) if known else None


def grouped(tensors: Sequence[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    """Return key -> tensors, in the order in which keys come first."""
    found: dict[str, list[str]] = {}
    for name in tensors:
        found.setdefault(key(name), []).append(name)
    return found


def module_of(tensor: str) -> str:
    """Return the kind of module that a tensor belongs to: the last part of its name that is not a role."""
    parts = [part for part in tensor.split(".") if part not in ("weight", "bias")]
    return parts[-1] if parts else tensor


def number_of(tensor: str) -> float:
    """Return the number of the layer that a tensor belongs to; infinity for one outside all layers."""
    found = _LAYER.search(tensor)
    return int(found[1]) if found else math.inf


def layers_of(tensors: Sequence[str], most: float = math.inf) -> Mapping[str, str]:
    """Return tensor -> its layer, or its range of neighbouring layers if there are more than `most`, or `outside`."""
    numbers = sorted({number_of(name) for name in tensors} - {math.inf})
    size = max(1, math.ceil(len(numbers) / most))
    names = {math.inf: OUTSIDE}
    for start in range(0, len(numbers), size):
        band = numbers[start : start + size]
        names.update(dict.fromkeys(band, str(band[0]) if len(band) == 1 else f"{band[0]}-{band[-1]}"))
    return {name: names[number_of(name)] for name in tensors}
