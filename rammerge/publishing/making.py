"""From a family and a method to a finished model directory."""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from rammerge.activations.activations import Activations
from rammerge.activations.recording import record
from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.checkpoints.companions import companions_of, compare_companions
from rammerge.checkpoints.family import Family
from rammerge.checkpoints.layout import Layout
from rammerge.checkpoints.stored import INDEX
from rammerge.engine.forecast import forecast, output_layout
from rammerge.engine.matrices.solving import solve_matrices
from rammerge.engine.matrices.updates import update_bytes
from rammerge.engine.options import MergeOptions
from rammerge.engine.output.shards import ShardRecord
from rammerge.engine.passes.measuring import measure, runners_for
from rammerge.engine.passes.merging import Runners, merge_runners, merge_shards
from rammerge.engine.passes.overlap import OverlapCounts
from rammerge.engine.passes.products import InnerProducts
from rammerge.engine.passes.statistics import Pass, Statistics
from rammerge.engine.session import Progress, Session
from rammerge.overlap import Overlap, Survival
from rammerge.publishing.card import model_card
from rammerge.publishing.companions import write_companions
from rammerge.publishing.identity import Settings, merge_identity
from rammerge.publishing.manifest import Manifest, SourceRecord
from rammerge.publishing.publish import publish
from rammerge.publishing.room import check_output
from rammerge.publishing.staging import (
    keep_only,
    locked_staging,
    recall_statistics,
    remember_statistics,
    still_needed,
    take_up,
)
from rammerge.rules import ResolvedMethod, Rule
from rammerge.system.atomic import write_json
from rammerge.system.tables import Shown, Table, percent
from rammerge.version import __version__


@dataclass(frozen=True, repr=False)
class MergeReport(Shown):
    """A finished merge. It prints as a table, here and in notebooks.

    Attributes:
        path: the model directory.
        manifest: the content of its rammerge.json.
        overlap: the overlap that was counted or given, None for methods that need none.
        warnings: sentences that the user should read.
        seconds: duration by stage.
        nbytes: size of the weights.
    """

    path: Path
    manifest: Manifest
    overlap: Overlap | None
    warnings: tuple[str, ...]
    seconds: Mapping[str, float]
    nbytes: int

    def table(self) -> Table:
        """Return what the merge did to each agent's changes."""
        factors = self.manifest.factors or {}
        rows = []
        for name, agent in self.manifest.survival.agents.items():
            counts = [f"{count:,}" for count in (agent.active, agent.unique, agent.shared)]
            factor = f"{factors[name]:.4f}" if name in factors else "-"
            rows.append([name, *counts, factor, percent(agent.survived_share)])
        return Table(["agent", "changed", "unique", "shared", "lambda", "kept after rounding"], rows)

    def note(self) -> str:
        """Return the sentence that says how much the output dtype kept."""
        kept = percent(self.manifest.survival.kept_share)
        return f"{kept} of the merged change is kept in {self.manifest.settings.dtype}"

    def where(self) -> str:
        """Return the sentence that says where the model is, how large, and what took how long."""
        seconds = ", ".join(f"{stage} {value:.1f} s" for stage, value in self.seconds.items())
        return f"{self.path}: {decimal(self.nbytes)} ({seconds})"

    def parts(self) -> list[Table | str]:
        """Return what a shell or a notebook shows."""
        return [self.table(), self.note(), *(f"warning: {warning}" for warning in self.warnings), self.where()]


def merge_family(
    family: Family,
    method: ResolvedMethod,
    out: Path,
    options: MergeOptions | None = None,
    *,
    overlap: Overlap | None = None,
    activations: Activations | None = None,
    tokenizer_from: str = "base",
    force: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> MergeReport:
    """Merge a family by `method` and write a complete model directory at `out`.

    `out` appears whole or not at all. Until then the work is in a hidden directory beside it: a later call with the
    same inputs and settings takes up the shards finished there, any other call starts afresh. The bytes depend only on
    inputs, method, `tokenizer_from` and the first four fields of `options`.

    Args:
        family: base and agents.
        method: see rammerge.rules.resolve.
        out: the directory to make.
        options: see MergeOptions.
        overlap: counts from an earlier `measure_overlap` of the family, used if its mask is the method's.
        activations: what was recorded earlier of the base on the method's prompts, if the method needs data.
        tokenizer_from: whose tokenizer, generation config and chat template to copy: `base` or an agent's name.
        force: replace an existing `out`, in one step at the end.
        progress: called from worker threads.

    Raises:
        InputError: anything wrong with the inputs or the output, found before work begins; or a NaN or an infinity.
        RammergeError: the disk is full, or an input changed; after a full disk the next call takes up finished shards.
    """
    options = options or MergeOptions()
    out = Path(out).expanduser().absolute()
    companions = companions_of(family.sources, tokenizer_from)
    heard = compare_companions(family.sources, tokenizer_from)
    layout = output_layout(family, options)
    inputs = [checkpoint.path for checkpoint in family.sources.values()]
    beside = update_bytes(family) if method.whole_matrices else 0
    check_output(out, force=force, needed_bytes=still_needed(out, layout.size + beside), inputs=inputs)
    family.check_unchanged()
    clock = _Clock()
    rule = method.bind_to(family)
    forecast(family, rule, options)  # before the inputs are hashed: refuses too little memory, and begins to compile
    settings = Settings.of(method, options, tokenizer_from, family)
    identity = merge_identity(family, settings)
    clock.lap("digest inputs")
    with ExitStack() as stack:
        staging = stack.enter_context(locked_staging(out))
        # Files' status is part of the identity, because inputs may have been replaced and restored between two runs.
        take_up(staging, {**identity, "status": list(family.states.values())})
        known = _counted_before(rule, overlap)
        seen = activations or _recorded(family, method, staging, options, progress, clock)
        merged = _solved(family, rule, known, seen, staging, options, progress, clock) if rule.matrices else family
        session = stack.enter_context(Session(merged, options, progress))
        statistics, records = _compute(session, rule, known, layout, staging, clock)
        family.check_unchanged()
        survival = _survival(rule, records)
        manifest = _manifest(family, rule, settings.of_tokens(seen.tokens if seen else None), statistics, survival)
        warnings = [*rule.misfits(survival, manifest.elements), *rule.cautions(statistics)]
        warnings += survival.losses(rule.name, options.dtype)
        model = staging / "model"
        manifest = _complete(model, manifest, family.base, companions, layout, records, warnings)
        publish(staging, out)
        notes = tuple(session.notes)
    clock.lap("publish")
    counted = statistics.find(OverlapCounts(rule.mask))
    return MergeReport(out, manifest, counted, (*family.warnings, *heard, *warnings, *notes), clock.laps, layout.size)


def _recorded(
    family: Family,
    method: ResolvedMethod,
    staging: Path,
    options: MergeOptions,
    progress: Callable[[Progress], None] | None,
    clock: "_Clock",
) -> Activations | None:
    """Return the activations of the base on the method's prompts, which an earlier run may have left in `staging`."""
    if method.prompts is None:
        return None
    directory = staging / "activations"
    if (found := Activations.open(directory)) is not None:
        return found

    def report(done: int, total: int) -> None:
        if progress:
            progress(Progress("run the base on prompts", done, total))

    base, threads = family.sources["base"], options.threads
    found = record(base, method.prompts, directory, device=options.device, threads=threads, progress=report)
    clock.lap("record activations")
    return found


def _solved(
    family: Family,
    rule: Rule,
    counted: Statistics,
    activations: Activations | None,
    staging: Path,
    options: MergeOptions,
    progress: Callable[[Progress], None] | None,
    clock: "_Clock",
) -> Family:
    """Return the family with the updates of whole matrices. The statistics, which they may need, are made before."""
    with Session(family, options, progress) as session:
        statistics = _statistics(session, rule, counted, staging, {})
        clock.lap("statistics")
    solved = solve_matrices(family, rule, statistics, staging / "updates", options, progress, activations)
    clock.lap("solve matrices")
    return solved


def _counted_before(rule: Rule, overlap: Overlap | None) -> Statistics:
    """Return what an earlier measurement of the same agents found; counts only if they are of the rule's mask."""
    if overlap is None or overlap.agents != rule.agents:
        return Statistics()
    found: dict[Pass[Any], Any] = {OverlapCounts(rule.mask): overlap} if overlap.mask == rule.mask else {}
    return Statistics(found if overlap.gram is None else {**found, InnerProducts(): overlap.gram})


def _compute(
    session: Session, rule: Rule, counted: Statistics, layout: Layout, staging: Path, clock: "_Clock"
) -> tuple[Statistics, list[ShardRecord]]:
    """Make the statistics and the shards that `staging` does not have yet."""
    runners = merge_runners(session, rule)
    statistics = _statistics(session, rule, counted, staging, runners)
    clock.lap("statistics")
    records = merge_shards(session, rule, statistics, runners, layout, staging)
    clock.lap("merge and write")
    return statistics, records


def _statistics(session: Session, rule: Rule, counted: Statistics, staging: Path, merging: Runners) -> Statistics:
    recalled = recall_statistics(staging, rule)
    missing = [] if recalled else [each for each in rule.passes if counted.find(each) is None]
    runners = runners_for(session, missing)
    for runner in (*merging.values(), *runners.values()):
        runner.settle()
    if recalled:
        return counted | recalled
    statistics = counted | measure(session, runners)
    remember_statistics(staging, rule, statistics)
    return statistics


def _survival(rule: Rule, records: list[ShardRecord]) -> Survival:
    counts = [sum(column) for column in zip(*(record.counts for record in records), strict=True)]
    return Survival.from_counts(counts, rule.agents, rule.improves_on)


def _manifest(family: Family, rule: Rule, settings: Settings, statistics: Statistics, survival: Survival) -> Manifest:
    overlap = statistics.find(OverlapCounts(rule.mask))
    sources = {}
    for name, checkpoint in family.sources.items():
        digest = family.digests[name]
        sources[name] = SourceRecord(checkpoint.source, checkpoint.revision, digest.digest, digest.files)
    return Manifest(
        rammerge=__version__,
        settings=settings,
        formula=rule.settled.method.source,
        sources=sources,
        elements=family.elements,
        factors=rule.factors(statistics),
        survival=survival,
        versions={name: version(name) for name in ("torch", "safetensors", "huggingface_hub")},
        overlap=None if overlap is None else overlap.summary(),
    )


def _complete(
    model: Path,
    manifest: Manifest,
    base: Checkpoint,
    companions: Checkpoint,
    layout: Layout,
    records: list[ShardRecord],
    warnings: list[str],
) -> Manifest:
    """Add what makes the weights a model, and the manifest, which is returned as it was written."""
    known = {record.file: record.sha256 for record in records}
    keep_only(model, known)
    if layout.index is not None:
        write_json(model / INDEX, layout.index)
    write_companions(model, base, companions, manifest.settings.dtype, model_card(manifest, warnings))
    manifest = manifest.record_files(model, known)
    manifest.write(model)
    return manifest


class _Clock:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.laps[stage] = now - self._last
        self._last = now
