"""From merged weights to a model: companions, the card and the manifest."""

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.checkpoints.family import Family
from rammerge.checkpoints.layout import Layout
from rammerge.checkpoints.licences import find_licence
from rammerge.checkpoints.stored import INDEX
from rammerge.engine.matrices.directions import Directions
from rammerge.engine.output.shards import ShardRecord
from rammerge.engine.passes.overlap import OverlapCounts
from rammerge.engine.passes.statistics import Statistics
from rammerge.overlap import Survival
from rammerge.publishing.card import model_card
from rammerge.publishing.companions import brought_code, write_companions
from rammerge.publishing.identity import Settings
from rammerge.publishing.manifest import Manifest, SourceRecord
from rammerge.publishing.staging import keep_only
from rammerge.rules import Rule
from rammerge.rules.low_rank import about_directions, known_directions
from rammerge.system.atomic import write_json
from rammerge.version import __version__


def describe(family: Family, rule: Rule, settings: Settings, statistics: Statistics, survival: Survival) -> Manifest:
    """Return the manifest of a merge, still without its files."""
    overlap = statistics.find(OverlapCounts(rule.mask))
    sources = {}
    for name, checkpoint in family.sources.items():
        digest = family.digests[name]
        licence = find_licence(checkpoint.path)
        sources[name] = SourceRecord(checkpoint.source, checkpoint.revision, digest.digest, digest.files, licence)
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


def warnings_of(
    family: Family,
    rule: Rule,
    statistics: Statistics,
    survival: Survival,
    dtype: str,
    directions: Sequence[Directions] = (),
) -> list[str]:
    """Return what the user should know of a merge whose float tensors have `dtype`, one sentence each."""
    few = about_directions(rule, known_directions(family, directions))
    return [
        *rule.misfits(survival, family.elements),
        *rule.cautions(statistics),
        *few,
        *survival.losses(rule.name, dtype),
    ]


def complete(
    model: Path,
    manifest: Manifest,
    base: Checkpoint,
    companions: Checkpoint,
    layout: Layout,
    records: Sequence[ShardRecord],
    warnings: Sequence[str],
) -> Manifest:
    """Add what makes the weights a model, and the manifest, which is returned as it was written."""
    warnings = [*warnings, *brought_code(companions)]
    known = {record.file: record.sha256 for record in records}
    keep_only(model, known)
    if layout.index is not None:
        write_json(model / INDEX, layout.index)
    write_companions(model, base, companions, manifest.settings.dtype, model_card(manifest, warnings))
    manifest = replace(manifest, notes=tuple(warnings)).record_files(model, known)
    manifest.write(model)
    return manifest
