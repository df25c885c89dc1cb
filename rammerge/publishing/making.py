"""From a family and methods to finished model directories.

Statistics that methods need take a read before the merge, or two, which methods that are merged together share. Methods
on whole matrices read by themselves, and so do parts of the methods if memory or open files do not suffice for all.
"""

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from operator import or_
from pathlib import Path
from typing import Any

from rammerge.activations.activations import Activations
from rammerge.checkpoints.companions import companions_of, compare_companions
from rammerge.checkpoints.family import Family
from rammerge.checkpoints.layout import Layout, Shard
from rammerge.engine.forecast import output_layout
from rammerge.engine.matrices.directions import Directions
from rammerge.engine.matrices.solving import solve_matrices
from rammerge.engine.matrices.updates import update_bytes
from rammerge.engine.options import MergeOptions
from rammerge.engine.output.shards import ShardRecord
from rammerge.engine.passes.measuring import measure_missing, passes_of
from rammerge.engine.passes.merging import Merging, Runners, merge_runners, merge_shards
from rammerge.engine.passes.overlap import OverlapCounts, known_from
from rammerge.engine.passes.parts import Rounds
from rammerge.engine.passes.statistics import Statistics
from rammerge.engine.session import OnProgress, Session
from rammerge.errors import InputError
from rammerge.overlap import Overlap, Survival
from rammerge.publishing.counting import counted
from rammerge.publishing.finishing import complete, describe, warnings_of
from rammerge.publishing.grouping import Group, grouped, note_of
from rammerge.publishing.identity import Settings, merge_identity
from rammerge.publishing.publish import publish
from rammerge.publishing.recording import recorded
from rammerge.publishing.report import MergeReport
from rammerge.publishing.room import check_outputs
from rammerge.publishing.staging import locked_staging, recall_statistics, remember_statistics, still_needed, take_up
from rammerge.rules import ResolvedMethod, Rule
from rammerge.system.paths import expanded


def merge_family(
    family: Family, method: ResolvedMethod, out: Path, options: MergeOptions | None = None, **settings: Any
) -> MergeReport:
    """Merge a family by `method` and write a complete model directory at `out`; see `merge_together`."""
    (report,) = merge_together(family, {out: method}, options, **settings)
    return report


def merge_together(
    family: Family,
    methods: Mapping[Path, ResolvedMethod],
    options: MergeOptions | None = None,
    *,
    overlap: Overlap | None = None,
    activations: Activations | None = None,
    tokenizer_from: str = "base",
    force: bool = False,
    progress: OnProgress | None = None,
    names: Mapping[Path, str] | None = None,
) -> Iterator[MergeReport]:
    """Merge a family by several methods and write a complete model directory for each, in one read of the inputs.

    A directory appears whole or not at all. Until then the work is in a hidden directory beside it: a later call with
    the same inputs and settings takes up the shards finished there, any other call starts afresh. The bytes depend only
    on inputs, method, `tokenizer_from` and the first four fields of `options`. Each report is yielded at once.

    Args:
        family: base and agents.
        methods: by directory to make; see rammerge.rules.resolve.
        options: see MergeOptions.
        overlap: counts from an earlier `measure_overlap` of the family, used if its mask is the method's.
        activations: what was recorded earlier of the base on a method's prompts, if the method needs data.
        tokenizer_from: whose tokenizer, generation config and chat template to copy: `base` or an agent's name.
        force: replace existing directories, each in one step at the end.
        progress: called from worker threads.
        names: what sentences call models, by directory, in place of the directories.

    Raises:
        InputError: anything wrong with the inputs or the output, found before work begins; or a NaN or an infinity. If
            only some of several results overflow the output dtype, that is said once the others are made.
        RammergeError: the disk is full, or an input changed; after a full disk the next call takes up finished shards.
    """
    work = _Work(family, options or MergeOptions(), overlap, activations, tokenizer_from, force, progress)
    groups = work.divided(methods)
    failed: dict[Path, InputError] = {}
    for group in groups:
        failed |= yield from work.merge(group.rules, note_of(groups))
    if failed:
        called = {**({out: str(out) for out in failed} if len(methods) > 1 else {}), **(names or {})}
        said = [f"{called[out]}: {error}" if out in called else str(error) for out, error in failed.items()]
        raise InputError("; ".join(said))


def merge_part(
    family: Family,
    methods: Mapping[Path, ResolvedMethod],
    options: MergeOptions,
    part: tuple[int, int],
    *,
    overlap: Overlap | None = None,
    found: Rounds = (),
    tokenizer_from: str = "base",
    progress: OnProgress | None = None,
) -> None:
    """Merge a part of the shards, and leave them for `merge_together` into the same directories.

    Several processes may do so in directories of their own, from which `rammerge.publishing.staging.add_part` collects
    what they finished. Part 0 has no shards: it makes the statistics of what `rammerge.publishing.counting` counted in
    parts, or reads the model for them. Other parts find them when they are added there.

    Args:
        family: base and agents.
        methods: by directory to make; none sees whole matrices.
        options: see MergeOptions.
        part: its number, and the number of parts.
        overlap: as for `merge_together`, which also refuses a model that overflows.
        found: for part 0, by round what `count_part` returned for each part.
        tokenizer_from: as for `merge_together`.
        progress: called from worker threads.
    """
    known = counted([method.bind_to(family) for method in methods.values()], overlap, found)
    work = _Work(family, options, overlap, None, tokenizer_from, force=False, progress=progress, known=known)
    for group in work.divided(methods):
        work.merge_part(group.rules, work.layout.part(*part))


@dataclass(frozen=True)
class _Work:
    """What is the same for all merges of a call; see `merge_together`."""

    family: Family
    options: MergeOptions
    overlap: Overlap | None
    activations: Activations | None
    tokenizer_from: str
    force: bool
    progress: OnProgress | None
    known: Statistics = field(default_factory=Statistics)

    @cached_property
    def layout(self) -> Layout:
        """Of each model."""
        return output_layout(self.family, self.options)

    def divided(self, methods: Mapping[Path, ResolvedMethod]) -> list[Group[Path]]:
        """Check everything that can be checked before work begins, and return what is made together."""
        methods = {expanded(out).absolute(): method for out, method in methods.items()}
        self._check_room(methods)
        self.family.check_unchanged()
        rules = {out: method.bind_to(self.family) for out, method in methods.items()}
        return grouped(self.family, rules, self.options)  # before the inputs are hashed: code is compiled meanwhile

    def _check_room(self, methods: Mapping[Path, ResolvedMethod]) -> None:
        """Check that the models can be written where they are wanted, and that the companions to copy are there."""
        companions_of(self.family.sources, self.tokenizer_from)
        size = self.layout.size
        with_updates = [out for out, method in methods.items() if method.whole_matrices][:1]  # one at a time has them
        sizes = dict.fromkeys(methods, size) | dict.fromkeys(with_updates, size + update_bytes(self.family))
        needed = {out: still_needed(out, each) for out, each in sizes.items()}
        check_outputs(needed, force=self.force, inputs=[source.path for source in self.family.sources.values()])

    def merge(
        self, group: Mapping[Path, Rule], said: Sequence[str]
    ) -> Generator[MergeReport, None, dict[Path, InputError]]:
        """Make and publish models that are written at the same time; `said` are sentences for the user.

        Returns:
            Why some could not be made.
        """
        clock = _Clock()
        with ExitStack() as stack:
            models = self._begun(group, stack, clock)
            merged = self.family
            if models[0].rule.matrices:  # such a model is alone
                merged, models = self._solved(models[0], clock)
            session = stack.enter_context(Session(merged, self.options, self.progress, len(models)))
            made = self._compute(session, models, self.layout.shards, clock)
            self.family.check_unchanged()
            failed = {}
            for model, (statistics, records) in zip(models, made, strict=True):
                if isinstance(records, InputError):
                    failed[model.out] = records
                else:
                    yield self._finish(model, statistics, records, [*said, *session.notes], clock)
            return failed

    def merge_part(self, group: Mapping[Path, Rule], shards: Sequence[Shard]) -> None:
        """Make some shards of models, in their staging directories."""
        clock = _Clock()
        with ExitStack() as stack:
            models = self._begun(group, stack, clock)
            session = stack.enter_context(Session(self.family, self.options, self.progress, len(models)))
            self._compute(session, models, shards, clock)
            self.family.check_unchanged()

    def _begun(self, group: Mapping[Path, Rule], stack: ExitStack, clock: "_Clock") -> list["_Model"]:
        """Lock a staging directory for each model until `stack` ends, and take up what is finished there."""
        rules = list(group.values())
        settings = [Settings.of(rule.settled, self.options, self.tokenizer_from, self.family) for rule in rules]
        identities = [merge_identity(self.family, each) for each in settings]
        clock.lap("digest inputs")
        stagings = [stack.enter_context(locked_staging(out)) for out in group]
        for staging, identity in zip(stagings, identities, strict=True):
            # Files' status is part of the identity: inputs may have been replaced and restored between two runs.
            take_up(staging, {**identity, "status": list(self.family.states.values())})
        return list(map(_Model, group, rules, settings, stagings))

    def _solved(self, model: "_Model", clock: "_Clock") -> tuple[Family, list["_Model"]]:
        """Return the family with the updates of whole matrices, and the model with what became known on the way.

        The statistics, which the updates may need, are made before.
        """
        family, options, progress = self.family, self.options, self.progress
        seen = self.activations if model.rule.settled.prompts is not None else None
        if seen is None and model.rule.settled.prompts is not None:
            base, directory = family.sources["base"], model.staging / "activations"
            seen = recorded(base, model.rule.settled.prompts, directory, options, progress)
            clock.lap("record activations")
        with Session(family, options, progress) as session:
            (statistics,) = self._statistics(session, [model], {})
            clock.lap("statistics")
        updates = model.staging / "updates"
        solved = solve_matrices(family, model.rule, statistics, updates, options, progress, seen)
        clock.lap("solve matrices")
        settings = model.settings.of_tokens(seen.tokens if seen else None)
        return solved.family, [replace(model, settings=settings, directions=solved.directions)]

    def _compute(
        self, session: Session, models: Sequence["_Model"], shards: Sequence[Shard], clock: "_Clock"
    ) -> list[tuple[Statistics, list[ShardRecord] | InputError]]:
        """Make the statistics and the shards that the models do not have yet, unless a model's result overflows."""
        runners = merge_runners(session, [model.rule for model in models])
        statistics = self._statistics(session, models, runners)
        clock.lap("statistics")
        mergings = {
            model.staging: Merging(session, model.rule, found, runners)
            for model, found in zip(models, statistics, strict=True)
        }
        records = merge_shards(session, mergings, shards)
        clock.lap("merge and write")
        return list(zip(statistics, (records[model.staging] for model in models), strict=True))

    def _statistics(self, session: Session, models: Sequence["_Model"], merging: Runners) -> list[Statistics]:
        """Return the statistics that each model would have alone."""
        before = [known_from(self.overlap, model.rule.agents, model.rule.mask) for model in models]
        recalled = [recall_statistics(model.staging, model.rule) for model in models]
        known = reduce(or_, [*before, *filter(None, recalled), self.known])
        missing = passes_of([model.rule for model, found in zip(models, recalled, strict=True) if found is None])
        known = measure_missing(session, missing, known, merging.values())
        for model, found in zip(models, recalled, strict=True):
            if found is None:
                remember_statistics(model.staging, model.rule, known)
        return [each | known.only(model.rule.passes) for model, each in zip(models, before, strict=True)]

    def _finish(
        self,
        model: "_Model",
        statistics: Statistics,
        records: Sequence[ShardRecord],
        notes: Sequence[str],
        clock: "_Clock",
    ) -> MergeReport:
        """Add what makes weights a model, and publish it."""
        family, rule = self.family, model.rule
        survival = _survival(rule, records)
        manifest = describe(family, rule, model.settings, statistics, survival)
        warnings = warnings_of(family, rule, statistics, survival, self.options.dtype, model.directions)
        companions = companions_of(family.sources, self.tokenizer_from)
        content = model.staging / "model"
        manifest = complete(content, manifest, family.base, companions, self.layout, records, warnings)
        publish(model.staging, model.out)
        clock.lap("publish")
        heard = (*family.warnings, *compare_companions(family.sources, self.tokenizer_from))
        counted = statistics.find(OverlapCounts(rule.mask))
        said = (*heard, *warnings, *notes)
        return MergeReport(model.out, manifest, counted, said, dict(clock.laps), self.layout.size)


@dataclass(frozen=True)
class _Model:
    """A model that is being made: where, by which rule, with which settings, and where its work is until then.

    `directions` says in how many directions each agent changed most matrices, for a rule that sees them.
    """

    out: Path
    rule: Rule
    settings: Settings
    staging: Path
    directions: Sequence[Directions] = ()


def _survival(rule: Rule, records: Sequence[ShardRecord]) -> Survival:
    counts = [sum(column) for column in zip(*(record.counts for record in records), strict=True)]
    return Survival.from_counts(counts, rule.agents, rule.improves_on)


class _Clock:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.laps[stage] = now - self._last
        self._last = now
