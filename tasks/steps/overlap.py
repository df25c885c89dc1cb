"""The step that counts which elements each agent changed, alone or with others."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from rammerge.checkpoints.mergeable import Resize
from rammerge.engine.options import MergeOptions
from rammerge.engine.passes import measuring
from rammerge.engine.passes.parts import join_parts
from rammerge.engine.passes.statistics import Statistics
from rammerge.overlap import Overlap
from rammerge.recipe import Compute
from rammerge.store import Entry
from rammerge.system.atomic import write_json
from tasks.runtime.result import Result
from tasks.runtime.step import step
from tasks.runtime.turns import merging_on
from tasks.steps.collecting import Counted, read_counted
from tasks.steps.computing import machine, report_progress
from tasks.steps.methods import MethodRef, said_of
from tasks.steps.sources import Checked, Groups, Model, open_family


class OverlapResult(Result):
    """The elements that the agents changed: `overlap.json` in `path`, and its summary by agent."""

    summary: dict[str, dict[str, Any]]
    warnings: list[str]

    def against(self, methods: Mapping[str, MethodRef]) -> list[str]:
        """Return what these agents' statistics say against variants, before any of them is merged."""
        overlap = self.whole()
        return said_of(methods, lambda method: method.bind(overlap.agents).forewarnings(overlap))

    def whole(self) -> Overlap:
        """Return all that was counted."""
        return Overlap.from_json(json.loads(self.json_file.read_text(encoding="utf-8")))

    @property
    def json_file(self) -> Path:
        """The whole overlap, as `Overlap.from_json` reads it."""
        return self.path / "overlap.json"

    @classmethod
    def read(cls, entry: Entry) -> Self:
        """Return the result that `extract` wrote."""
        content = json.loads((entry.path / "overlap.json").read_text(encoding="utf-8"))
        warnings = json.loads((entry.path / "warnings.json").read_text(encoding="utf-8"))
        return cls(path=entry.path, digest=entry.digest, summary=content["summary"], warnings=warnings)


@step(
    "extract",
    version=measuring.OVERLAP_VERSION,
    run_name="extract task vectors",
    result=OverlapResult,
    ignore=["checked", "compute", "parts"],
    work="merge",
)
def extract(
    out: Path,
    base: Model,
    agents: Mapping[str, Model],
    groups: Groups,
    resize: Resize,
    compute: Compute,
    checked: Checked,
    parts: Sequence[Counted] = (),
) -> None:
    """Count the elements that each agent changed, alone or with others, into `overlap.json` (RAM paper, Sec. 3).

    What `parts` counted is put together.
    """
    if counted := read_counted([parts] if parts else []):
        passes = measuring.overlap_passes()
        overlap = measuring.overlap_of(passes, join_parts(passes, Statistics(), counted))
    else:
        family = open_family(base, agents, groups, resize)
        with merging_on(compute.merge_on) as device:
            options = MergeOptions(**machine(compute, device))
            overlap = measuring.measure_overlap(family, options=options, progress=report_progress())
    write_json(out / "overlap.json", overlap.to_json())
    write_json(out / "warnings.json", overlap.warnings())
