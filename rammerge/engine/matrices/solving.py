"""Solving whole matrices: their inner products, the method's multipliers, and the updates, in two reads of each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rammerge.activations.activations import Activations
from rammerge.checkpoints.family import Family
from rammerge.engine.matrices.directions import Directions, few_directions, few_in_most
from rammerge.engine.matrices.elementwise import KernelUpdates, update_runners
from rammerge.engine.matrices.memory import matrices_of, plan_matrices
from rammerge.engine.matrices.method import Grams, MatrixMethod, Moments, Multiplier, Of, added
from rammerge.engine.matrices.moments import moments_of
from rammerge.engine.matrices.reading import task_vectors
from rammerge.engine.matrices.symmetric import add_product, mirror
from rammerge.engine.matrices.updates import FLOAT32, UpdateFile, updates, with_updates
from rammerge.engine.matrices.view import MatrixView
from rammerge.engine.options import MergeOptions
from rammerge.engine.output.chunks import Unit
from rammerge.engine.passes.merge_block import MergeRule
from rammerge.engine.passes.statistics import Statistics
from rammerge.engine.progress import OnProgress
from rammerge.engine.session import Session
from rammerge.system.lazy import torch
from rammerge.system.threads import single_threaded, work_through

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Solved:
    """A family with the updates of its matrices.

    Attributes:
        family: the family, with its updates as one more member.
        directions: of each task vector, or of their sum alone, in most matrices; see `few_in_most`.
    """

    family: Family
    directions: Sequence[Directions]


def solve_matrices(
    family: Family,
    rule: MergeRule,
    statistics: Statistics,
    directory: Path,
    options: MergeOptions,
    progress: OnProgress | None = None,
    activations: Activations | None = None,
) -> Solved:
    """Return the family with its updates by `rule`, which are computed into `directory` unless they are there already.

    `statistics` are those of the rule's passes, `activations` the base's, for methods that need moments.
    The bytes depend on inputs, rule, activations and device; on a CPU also on its linear algebra, but not on the
    threads.

    Raises:
        InputError: a NaN or an infinity in an input, or too little memory.
        OSError: the disk is full or failed.
    """
    extended = with_updates(family, directory)
    with Session(family, options, progress) as session, updates(extended) as file, single_threaded():
        runners = update_runners(session, rule)
        for runner in runners.values():
            runner.settle()
        plan = plan_matrices(session, rule, activations)
        methods = {view.name: method for view, method in matrices_of(session, rule)}
        known = file.finished()
        units = [Unit(name, 0, family.base.tensors[name].numel) for name in methods if name not in known]
        made = KernelUpdates(session, rule, statistics, runners, file)
        solver = _Solver(session, methods, rule.weights, file, made, activations)
        session.run("solve matrices", units, solver.solve, threads=plan.threads, ahead=plan.threads)
        work_through(list(solver.factors().items()), lambda each: file.scale(*each), plan.threads)
        return Solved(extended, few_in_most(file.known(name).directions for name in methods))


@dataclass(frozen=True)
class _Solver:
    session: Session
    methods: Mapping[str, MatrixMethod]
    weights: Sequence[float]
    file: UpdateFile
    made: KernelUpdates
    activations: Activations | None

    def solve(self, unit: Unit) -> None:
        with self.session.lane():
            self._solve(unit)

    def _solve(self, unit: Unit) -> None:
        method = self.methods[unit.tensor]
        view = method.view(unit.tensor, self.session.base.tensors[unit.tensor].shape)
        if method.of == "update":
            self.made.write(view.name)
        grams = self._grams(view, method)
        if not all(bool(torch.isfinite(gram).all()) for gram in grams.pairs.values()):
            self.session.refuse_non_finite(unit)
        seen = 1 if method.of == "sum" else len(self.session.agents)
        directions = [few_directions(grams[at, at], min(view.short, view.long)) for at in range(seen)]
        solution = method.solve(grams)
        make = solution if callable(solution) else partial(_product, solution)
        del grams
        squares = []
        for block in view.blocks():
            # A block of what the kernel made is read before its product replaces it.
            matrices = [self._update(view, block)] if method.of == "update" else self._matrices(view, block, method.of)
            update = make(matrices)
            squares.append(float(update.square().sum()))
            view.write(block, update.float().cpu(), lambda start, memory: self.file.write(view.name, start, memory))
        self.file.finish(view.name, math.sqrt(math.fsum(squares)), directions)

    def factors(self) -> dict[str, float]:
        """Return the factors of updates by methods that compare all of theirs, once all are finished."""
        found: dict[str, float] = {}
        for method in dict.fromkeys(self.methods.values()):
            if method.across is not None:
                names = [name for name, other in self.methods.items() if other is method and self._has_data(name)]
                found |= method.across({name: self.file.known(name).norm for name in names})
        return found

    def _has_data(self, name: str) -> bool:
        seen = self.activations is not None and name in self.activations.layers
        return seen or not self.methods[name].needs_moments

    def _grams(self, view: MatrixView, method: MatrixMethod) -> Grams:
        pairs: dict[tuple[int, int], Tensor] = {}
        compares = method.compares(view)
        for matrices in self._blocks(view, method.of):
            for j, right in enumerate(matrices):
                others = compares and (method.of != "update" or j == len(matrices) - 1)
                for i in [*range(j if others else 0), j]:
                    if (i, j) not in pairs:
                        pairs[i, j] = torch.zeros(view.short, view.short).to(right)
                    if i == j:
                        add_product(pairs[j, j], right)
                    else:
                        pairs[i, j].addmm_(matrices[i], right.T)
        for (i, j), gram in pairs.items():
            if i == j:
                mirror(gram)
        return Grams(view, pairs, partial(self._blocks, view, method.of), self._moments(view))

    def _blocks(self, view: MatrixView, of: Of) -> Iterator[Sequence[Tensor]]:
        return (self._matrices(view, block, of) for block in view.blocks())

    def _moments(self, view: MatrixView) -> Moments | None:
        if self.activations is None or not self.methods[view.name].needs_moments:
            return None
        agents = list(self.session.agents)
        return moments_of(view, agents, self.activations, lambda block: self._deltas(view, block), self.session.device)

    def _matrices(self, view: MatrixView, block: slice, of: Of) -> Sequence[Tensor]:
        """Return a block of each task vector, then of the update, or of the sum of task vectors alone, in float64."""
        deltas = self._deltas(view, block)
        return [added(deltas)] if of == "sum" else [*deltas, self._update(view, block)] if of == "update" else deltas

    def _deltas(self, view: MatrixView, block: slice) -> list[Tensor]:
        return task_vectors(self.session, view, block, self.weights)

    def _update(self, view: MatrixView, block: slice) -> Tensor:
        stored = view.read(FLOAT32, block, lambda start, memory: self.file.read(view.name, start, memory))
        return stored.to(self.session.device).double()


def _product(multipliers: Sequence[Multiplier], matrices: Sequence[Tensor]) -> Tensor:
    return added(multiplier @ matrix for multiplier, matrix in zip(multipliers, matrices, strict=True))
