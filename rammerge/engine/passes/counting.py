"""Pass 1: global statistics of the task vectors, as exact integers that add up in any order."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rammerge.engine.blocks import DENSITY_EPSILONS, CountBlock, DensityBlock, MagnitudeBlock, Numbers
from rammerge.engine.kernel import Kernel, added
from rammerge.engine.output.layout import Unit
from rammerge.engine.session import Session
from rammerge.methods import METHODS
from rammerge.methods.elementwise.sparsified import TiesParams
from rammerge.methods.spec import Params, Pass
from rammerge.numerics.masks import Mask
from rammerge.overlap import Densities, Overlap


def count_overlap(session: Session, mask: Mask, *, densities: bool = False) -> Overlap:
    """Count, per tensor and agent, the changed elements by the number of agents that changed them.

    Raises:
        InputError: a NaN or an infinity in the base or in an agent.
    """
    kernels = [_overlap_kernel(session, mask)]
    if densities:
        kernels.append(Kernel(session, DensityBlock(len(session.agents)), rows=1))
    for kernel in kernels:
        kernel.compile()
    overlap = _overlap(session, mask, kernels[0])
    return replace(overlap, densities=_densities(session, kernels[1])) if densities else overlap


def _overlap_kernel(session: Session, mask: Mask) -> Kernel:
    return Kernel(session, CountBlock(len(session.agents), mask.mode), rows=1)


def _overlap(session: Session, mask: Mask, kernel: Kernel) -> Overlap:
    agents = len(session.agents)
    counted = _count(session, "count overlap", kernel, mask.threshold)
    by_tensor = {
        name: [counts[start : start + agents] for start in range(0, agents * agents, agents)]
        for name, counts in counted.items()
    }
    return Overlap(tuple(session.agents), mask, session.elements, by_tensor)


def _densities(session: Session, kernel: Kernel) -> dict[str, Densities]:
    rules = len(DENSITY_EPSILONS) + 2
    width = len(session.agents) * rules
    counted = _count(session, "measure densities", kernel, 0.0)
    shares = [sum(column) / max(1, session.elements) for column in zip(*counted.values(), strict=True)] or [0.0] * width
    found = {}
    for index, (name, agent) in enumerate(session.agents.items()):
        row = shares[index * rules : (index + 1) * rules]
        dtypes: Counter[str] = Counter()
        for tensor in session.floats:
            dtypes[agent.tensors[tensor].dtype.name] += agent.tensors[tensor].numel
        above = {f"{epsilon:g}": share for epsilon, share in zip(DENSITY_EPSILONS, row, strict=False)}
        found[name] = Densities(dict(sorted(dtypes.items())), above, relative=row[-2], exact=row[-1])
    return found


def _count(session: Session, stage: str, kernel: Kernel, threshold: float) -> dict[str, list[int]]:
    """Run a counting function over all float tensors; its counts per tensor."""
    agents = len(session.agents)
    lock = threading.Lock()
    totals = {name: [0] * kernel.width for name in session.floats}

    def work(unit: Unit) -> None:
        counts = kernel.run(unit, Numbers([[0.0] * agents], threshold, [0] * (1 + agents), unit.start))
        with lock:
            totals[unit.tensor] = added(totals[unit.tensor], counts)

    session.run(stage, list(session.blocks(session.floats)), work)
    return totals


class NoStatistics:
    """Zeros, for the passes that make the statistics."""

    def __init__(self, agents: int) -> None:
        self._agents = agents

    def shared_and_unique(self, _: str | None) -> list[tuple[int, int]]:
        """Return nothing shared and nothing unique."""
        return [(0, 0)] * self._agents

    def magnitude_thresholds(self, _: str | None) -> list[float]:
        """Return thresholds that keep everything."""
        return [0.0] * self._agents


def rows_without_statistics(name: str, params: Params, agents: int) -> Sequence[Sequence[float]]:
    """Return a method's coefficients as they are in the passes that make the statistics."""
    return METHODS[name].coefficients(params, NoStatistics(agents), "", agents)


def statistics_kernels(
    session: Session, name: str, params: Params, overlap: Overlap | None = None
) -> dict[Pass, Kernel]:
    """Return what makes the statistics that a method asks for; `overlap` saves a pass when it was counted before."""
    passes = METHODS[name].passes(params)
    kernels: dict[Pass, Kernel] = {}
    if "overlap" in passes and overlap is None:
        kernels["overlap"] = _overlap_kernel(session, params.mask())
    if "magnitude" in passes:
        # numpy comes with it: no other pass needs it, and the plan is to count its memory.
        from rammerge.engine.histogram import ROW_BYTES

        session.reserve(len(session.agents) * ROW_BYTES)
        rows = len(rows_without_statistics(name, params, len(session.agents)))
        kernels["magnitude"] = Kernel(session, MagnitudeBlock(name), rows)
    return kernels


def statistics_for(
    session: Session, name: str, params: Params, kernels: Mapping[Pass, Kernel], overlap: Overlap | None = None
) -> GlobalStatistics:
    """Make the statistics that a method asks for, by its `statistics_kernels`.

    Raises:
        InputError: a NaN or an infinity in the base or in an agent.
    """
    thresholds: dict[str | None, list[float]] = {}
    if "overlap" in kernels:
        overlap = _overlap(session, params.mask(), kernels["overlap"])
    if "magnitude" in kernels:
        from rammerge.engine.passes.ranking import Ranking

        assert isinstance(params, TiesParams)
        rows = rows_without_statistics(name, params, len(session.agents))
        thresholds = Ranking(session, params, kernels["magnitude"], rows).all_thresholds()
    return GlobalStatistics(overlap, thresholds)


class GlobalStatistics:
    """The statistics of the whole model that a method's coefficients are made from."""

    def __init__(self, overlap: Overlap | None, thresholds: dict[str | None, list[float]]) -> None:
        self.overlap = overlap
        self._thresholds = thresholds
        self._whole_model = overlap.shared_and_unique() if overlap else []

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON."""
        overlap = self.overlap.to_json() if self.overlap else None
        return {"overlap": overlap, "thresholds": list(self._thresholds.items())}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> GlobalStatistics:
        """Return what `to_json` wrote."""
        overlap = content["overlap"]
        return cls(Overlap.from_json(overlap) if overlap else None, dict(content["thresholds"]))

    def shared_and_unique(self, tensor: str | None) -> list[tuple[int, int]]:
        """Return (shared, unique) per agent."""
        assert self.overlap is not None, "the method did not ask for the overlap pass"
        return self._whole_model if tensor is None else self.overlap.shared_and_unique(tensor)

    def magnitude_thresholds(self, tensor: str | None) -> list[float]:
        """Return the smallest kept magnitude per agent."""
        return self._thresholds[tensor]
