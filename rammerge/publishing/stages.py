"""The stages of a merge: checks, statistics, updates of whole matrices, shards, and what makes these a model."""

import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from operator import or_
from pathlib import Path

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
from rammerge.engine.passes.statistics import Statistics
from rammerge.engine.progress import OnProgress
from rammerge.engine.session import Session
from rammerge.errors import InputError
from rammerge.overlap import Overlap, Survival
from rammerge.publishing.finishing import complete, describe, warnings_of
from rammerge.publishing.grouping import Group, grouped
from rammerge.publishing.identity import Settings, merge_identity
from rammerge.publishing.publish import publish
from rammerge.publishing.recording import recorded
from rammerge.publishing.report import MergeReport
from rammerge.publishing.room import check_outputs
from rammerge.publishing.staging import locked_staging, recall_statistics, remember_statistics, still_needed, take_up
from rammerge.rules import ResolvedMethod, Rule
from rammerge.system.paths import expanded


@dataclass(frozen=True)
class Model:
    """A model that is being made.

    Attributes:
        out: where it will be.
        rule: what merges it.
        settings: what its manifest says of that.
        staging: where the work is until then.
        directions: in how many directions each agent changed most matrices, for a rule that sees them.
    """

    out: Path
    rule: Rule
    settings: Settings
    staging: Path
    directions: Sequence[Directions] = ()


class Clock:
    """Measures how long each stage takes.

    Attributes:
        laps: the seconds, by stage.
    """

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Note that a stage has ended, which began when the one before it ended."""
        now = time.perf_counter()
        self.laps[stage] = now - self._last
        self._last = now


@dataclass(frozen=True)
class Stages:
    """The stages of the merges of one call, and what is the same for all of them.

    Attributes:
        family, options, overlap, activations, tokenizer_from, force, progress: see `making.merge_together`.
        known: statistics that several processes have counted in parts.
    """

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
        """The layout of each model."""
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
        clock = Clock()
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
        clock = Clock()
        with ExitStack() as stack:
            models = self._begun(group, stack, clock)
            session = stack.enter_context(Session(self.family, self.options, self.progress, len(models)))
            self._compute(session, models, shards, clock)
            self.family.check_unchanged()

    def _begun(self, group: Mapping[Path, Rule], stack: ExitStack, clock: Clock) -> list[Model]:
        """Lock a staging directory for each model until `stack` ends, and take up what is finished there."""
        rules = list(group.values())
        settings = [Settings.of(rule.settled, self.options, self.tokenizer_from, self.family) for rule in rules]
        identities = [merge_identity(self.family, each) for each in settings]
        clock.lap("digest inputs")
        stagings = [stack.enter_context(locked_staging(out)) for out in group]
        for staging, identity in zip(stagings, identities, strict=True):
            # Files' status is part of the identity: inputs may have been replaced and restored between two runs.
            take_up(staging, {**identity, "status": list(self.family.states.values())})
        return list(map(Model, group, rules, settings, stagings))

    def _solved(self, model: Model, clock: Clock) -> tuple[Family, list[Model]]:
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
        self, session: Session, models: Sequence[Model], shards: Sequence[Shard], clock: Clock
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

    def _statistics(self, session: Session, models: Sequence[Model], merging: Runners) -> list[Statistics]:
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
        model: Model,
        statistics: Statistics,
        records: Sequence[ShardRecord],
        notes: Sequence[str],
        clock: Clock,
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


def _survival(rule: Rule, records: Sequence[ShardRecord]) -> Survival:
    counts = [sum(column) for column in zip(*(record.counts for record in records), strict=True)]
    return Survival.from_counts(counts, rule.agents, rule.improves_on)
