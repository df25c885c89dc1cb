"""How long a plan's merges will take here, by the cost model and this machine's calibration."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from rich.filesize import decimal

from flows.run.planned import Plan
from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.checkpoints.family import Family
from rammerge.costs.calibration import calibrated
from rammerge.costs.model import FACTORS, Merges, Site, stages, total
from rammerge.engine.passes.magnitudes import KeptMagnitudes
from rammerge.engine.passes.measuring import passes_of
from rammerge.engine.passes.overlap import GIVEN
from rammerge.rules import Rule

# Measuring the machine would take longer than merging so few bytes.
_SMALL = 1 << 29


def costs(plan: Plan) -> Iterator[str]:
    """Yield a line about the time of the merges, if all models are on this machine, and one if not all is known."""
    sources = {"base": plan.base, **plan.agents}
    if plan.search or not plan.variants or not all(Path(origin.source).is_dir() for origin in sources.values()):
        return
    agents = {name: origin.source for name, origin in plan.agents.items()}
    family = Family.open(plan.base.source, agents, groups=plan.groups, resize=plan.recipe.output.resize)
    known = {name: method for name, method in plan.variants.items() if method.name in FACTORS and not method.then}
    if known:
        yield _forecast(plan, family, [method.resolved().bind_to(family) for method in known.values()])
    if unknown := [name for name in plan.variants if name not in known]:
        yield f"time: not known for {', '.join(unknown)}"


def _forecast(plan: Plan, family: Family, rules: list[Rule]) -> str:
    spec = plan.recipe
    merges = Merges(
        elements=family.elements,
        agents=len(family.members),
        methods=[rule.settled.name for rule in rules],
        statistics=_reads(rules, family, spec.compute.parts),
        input_size=max(2, round(_weights(family) / family.elements / (1 + len(family.members)))),
        output_size=4 if spec.output.dtype == "float32" else 2,
        parts=spec.compute.parts,
    )
    if merges.inputs < _SMALL:
        return "time: seconds for the merges, because the models are small"
    speeds = calibrated()
    site = Site(speeds)
    found = stages(merges, site)
    read, written = sum(stage.read for stage in found), sum(stage.written for stage in found)
    processor = sum(stage.processor for stage in found)
    return (
        f"time: {_duration(total(found, site))} for the merges of one machine{_of_many(merges, site)}, if nothing is "
        "done yet: "
        f"{decimal(round(read))} read at {decimal(round(speeds.read))}/s and {decimal(round(written))} written at "
        f"{decimal(round(speeds.write))}/s, {processor:.0f} s of {speeds.cores} processors"
    )


def _of_many(merges: Merges, site: Site) -> str:
    """Return how long as many such machines take as there are parts, each with the disk of this one."""
    many = replace(site, workers=merges.parts)
    return f", {_duration(total(stages(merges, many), many))} on {many.workers} like it" if many.workers > 1 else ""


def _reads(rules: list[Rule], family: Family, parts: int) -> int:
    """Return how often all inputs are read for statistics that the count of overlap does not give."""
    passes = [each for each in passes_of(rules) if each not in GIVEN]
    dtypes = {model.tensors[name].dtype.name for model in _models(family) for name in family.floats}
    # Differences of bfloat16 numbers are ranked in one read, if the model is not read in parts.
    twice = parts > 1 or dtypes != {"bfloat16"}
    return 2 if twice and any(isinstance(each, KeptMagnitudes) for each in passes) else int(bool(passes))


def _weights(family: Family) -> int:
    return sum(model.tensors[name].nbytes for model in _models(family) for name in family.floats)


def _models(family: Family) -> list[Checkpoint]:
    return [family.base, *family.members.values()]


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else str(timedelta(seconds=round(seconds)))
