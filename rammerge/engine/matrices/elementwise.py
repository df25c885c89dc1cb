"""Updates that a rule's kernel makes element by element, for what then multiplies them as whole matrices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rammerge.engine.blocks import Numbers
from rammerge.engine.buffers import pages
from rammerge.engine.computing import compute
from rammerge.engine.matrices.method import method_for
from rammerge.engine.matrices.updates import UpdateFile
from rammerge.engine.passes.merge_block import MergeRule, UpdateBlock
from rammerge.engine.passes.statistics import Statistics
from rammerge.engine.running import Runner, RunnerKey
from rammerge.engine.seeds import tensor_seeds
from rammerge.engine.session import Session
from rammerge.engine.work import Work
from rammerge.numerics.dtypes import DTYPES

_ITEM = DTYPES["float32"].itemsize


def update_runners(session: Session, rule: MergeRule) -> dict[RunnerKey, Runner]:
    """Return what makes the updates that are multiplied. Call this before the memory plan is made, which counts it."""
    tensors: dict[RunnerKey, list[str]] = {}
    for name in session.floats:
        part = rule.part(name)
        method = method_for(part.matrices, name, session.base.tensors[name].shape)
        if part.copied is None and method is not None and method.of == "update":
            tensors.setdefault(_key(part), []).append(name)
    return {key: Runner(session, *key, names) for key, names in tensors.items()}


def _key(part: MergeRule) -> RunnerKey:
    return UpdateBlock.of(part), part.height, part.by_rows


@dataclass(frozen=True)
class KernelUpdates:
    """Writes the updates of single tensors into the file of updates.

    Attributes:
        session: the inputs.
        rule: whose kernel makes them.
        statistics: what its coefficients are made of.
        runners: of `update_runners`.
        file: where they are written.
    """

    session: Session
    rule: MergeRule
    statistics: Statistics
    runners: Mapping[RunnerKey, Runner]
    file: UpdateFile

    def write(self, tensor: str) -> None:
        """Compute and write the update of a tensor.

        Raises:
            InputError: a NaN or an infinity in an input, or an update that is too large for float32.
        """
        part = self.rule.part(tensor)
        runner, rows = self.runners[_key(part)], part.rows(tensor, self.statistics)
        seeds = tensor_seeds(self.session, tensor)
        memory = pages(min(self.session.plan.block, self.session.base.tensors[tensor].numel) * _ITEM)
        for unit in self.session.blocks([tensor]):
            result = memory[: (unit.stop - unit.start) * _ITEM]
            compute(
                self.session, unit, [(runner, Work(Numbers(rows, part.mask.threshold, seeds, unit.start), [result]))]
            )
            self.file.write(tensor, unit.start, result)
