"""The library's front door: measure the overlap of agents, and merge them into a model directory."""

import json
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rammerge import __version__
from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.checkpoints.digest import CheckpointDigest, digest_checkpoint, fingerprint
from rammerge.checkpoints.family import Resize, check_mergeable
from rammerge.checkpoints.layout import Layout, TensorSpec, plan_layout
from rammerge.checkpoints.stored import INDEX
from rammerge.engine.options import MergeOptions
from rammerge.engine.output.shards import ShardRecord
from rammerge.engine.passes.densities import DensitiesByRule
from rammerge.engine.passes.measuring import measure, runners_for
from rammerge.engine.passes.merging import DISTINCT_SHARE, Survival, merge_runner, merge_shards
from rammerge.engine.passes.overlap import OverlapCounts
from rammerge.engine.passes.statistics import Statistics
from rammerge.engine.session import Progress, Session
from rammerge.errors import InputError, RammergeError, closest
from rammerge.methods import ResolvedMethod, Rule
from rammerge.numerics.masks import Mask
from rammerge.numerics.rounding import FLOAT_DTYPES
from rammerge.overlap import Overlap
from rammerge.publishing.card import model_card
from rammerge.publishing.publish import locked_staging, publish, staging_directory, write_companions, write_manifest
from rammerge.publishing.room import check_output
from rammerge.system.atomic import write_json

# Raise when the bytes of a merge or the counts of an extraction change for the same inputs: they enter cache keys.
MERGE_VERSION = 1
EXTRACT_VERSION = 1
# In the staging directory, for the next run if this one is killed.
_STATISTICS = "statistics.json"

__all__ = [
    "EXTRACT_VERSION",
    "MERGE_VERSION",
    "MergeOptions",
    "MergeReport",
    "Progress",
    "extract",
    "forecast",
    "merge",
]

ProgressCallback = Callable[[Progress], None]


@dataclass(frozen=True)
class MergeReport:
    """A finished merge.

    Attributes:
        path: the model directory.
        manifest: what its rammerge.json says.
        overlap: the overlap that was counted or given, None for methods that need none.
        warnings: sentences that the user should read.
        seconds: duration by stage.
        nbytes: size of the weights.
    """

    path: Path
    manifest: Mapping[str, Any]
    overlap: Overlap | None
    warnings: tuple[str, ...]
    seconds: Mapping[str, float]
    nbytes: int


def extract(
    base: Checkpoint,
    agents: Mapping[str, Checkpoint],
    *,
    mask: Mask | None = None,
    densities: bool = True,
    options: MergeOptions | None = None,
    resize: Resize = "refuse",
    progress: ProgressCallback | None = None,
) -> Overlap:
    """Count which elements each agent changed, alone or with others (RAM paper Sec. 3.1), by default |delta| > 1e-5.

    Raises:
        InputError: the agents cannot be merged into the base, or hold a NaN or an infinity.
    """
    checked = check_mergeable(base, agents, resize=resize)
    counts, by_rule = OverlapCounts(mask or Mask()), DensitiesByRule()
    with Session(checked.base, checked.agents, options or MergeOptions(), progress) as session:
        runners = runners_for(session, [counts, by_rule] if densities else [counts])
        for runner in runners.values():
            runner.compile()
        statistics = measure(session, runners)
    return replace(statistics[counts], densities=statistics.find(by_rule) or {})


def forecast(
    base: Checkpoint, agents: Mapping[str, Checkpoint], method: ResolvedMethod, options: MergeOptions
) -> tuple[int, int]:
    """Return the forecast peak resident bytes of the process, and the bytes of the weights that a merge will write.

    What the merge computes with, compiled functions or torch, is loaded to see how much it takes. Base and agents are
    those that `check_mergeable` returned.

    Raises:
        InputError: `options.memory` is too little, or the device is not there.
    """
    rule = method.bind(agents)
    layout = _layout(base, options)
    with Session(base, agents, options) as session:
        merge_runner(session, rule)
        runners_for(session, rule.passes)
        return session.plan.forecast, layout.size


def merge(
    base: Checkpoint,
    agents: Mapping[str, Checkpoint],
    method: ResolvedMethod,
    out: Path,
    options: MergeOptions | None = None,
    *,
    overlap: Overlap | None = None,
    tokenizer_from: str = "base",
    resize: Resize = "refuse",
    force: bool = False,
    progress: ProgressCallback | None = None,
) -> MergeReport:
    """Merge `agents` into `base` by `method` and write a complete model directory at `out`.

    `out` appears whole or not at all. Until then the work lies in a hidden directory beside it: a later call with the
    same inputs and settings takes up the shards finished there, any other call starts afresh. The bytes depend on
    inputs, method and the first four fields of `options` alone.

    Args:
        base: the model that the agents were trained from.
        agents: name -> checkpoint; their order is the order of summation.
        method: see rammerge.methods.resolve.
        out: the directory to make.
        options: see MergeOptions.
        overlap: counts from an earlier `extract` of the same checkpoints, used if its mask is the method's.
        tokenizer_from: whose tokenizer, generation config and chat template to copy: `base` or an agent's name.
        resize: what to do with agents that appended vocabulary rows (rammerge.checkpoints.family).
        force: replace an existing `out`, in one step at the end.
        progress: called from worker threads.

    Raises:
        InputError: anything wrong with the inputs or the output, found before work begins; or a NaN or an infinity.
        RammergeError: the disk is full; finished shards are kept for the next call.
    """
    options = options or MergeOptions()
    out = Path(out).expanduser().absolute()
    companions = _companions(base, agents, tokenizer_from)
    inputs = [base.path, *(agent.path for agent in agents.values())]
    check_output(out, force=force, needed_bytes=_still_needed(out, _layout(base, options)), inputs=inputs)
    clock = _Clock()
    checked = check_mergeable(base, agents, resize=resize)
    layout = _layout(checked.base, options)
    before = {checkpoint.path: fingerprint(checkpoint) for checkpoint in (base, *agents.values())}
    digests = {name: digest_checkpoint(checkpoint) for name, checkpoint in {"base": base, **agents}.items()}
    clock.lap("check and digest inputs")
    rule = method.bind(agents)
    counted = _counted_before(rule, overlap)
    identity = _identity(digests, method, options, tokenizer_from, resize)
    with locked_staging(out) as staging, Session(checked.base, checked.agents, options, progress) as session:
        _prepare(staging, {**identity, "status": list(before.values())})
        runner = merge_runner(session, rule)
        recalled = _recall_statistics(staging, rule)
        missing = [] if recalled else [each for each in rule.passes if counted.find(each) is None]
        runners = runners_for(session, missing)
        for each in (runner, *runners.values()):
            each.compile()
        statistics = counted | (recalled or measure(session, runners))
        if recalled is None:
            write_json(staging / _STATISTICS, statistics.to_json(rule.passes))
        clock.lap("statistics")
        records = merge_shards(session, rule, statistics, runner, layout, staging)
        clock.lap("merge and write")
        _refuse_changed(before, (base, *agents.values()))
        manifest, warnings = _describe(session, rule, identity, digests, statistics, records)
        model, known = staging / "model", {record.file: record.sha256 for record in records}
        _keep_only(model, known)
        if layout.index is not None:
            write_json(model / INDEX, layout.index)
        write_companions(model, checked.base, companions, options.dtype, model_card(manifest, warnings))
        manifest = write_manifest(model, manifest, known)
        publish(staging, out)
        notes = tuple(session.notes)
    clock.lap("publish")
    return MergeReport(
        out,
        manifest,
        statistics.find(OverlapCounts(rule.mask)),
        (*checked.warnings, *warnings, *notes),
        clock.laps,
        layout.size,
    )


def _layout(base: Checkpoint, options: MergeOptions) -> Layout:
    """Lay out the merged model: float tensors in the output dtype, all others as the base stores them."""
    dtype = FLOAT_DTYPES[options.dtype]
    tensors = {
        name: TensorSpec(dtype if info.dtype.is_floating_point else info.dtype, info.shape)
        for name, info in base.tensors.items()
    }
    return plan_layout(tensors, options.shard_size)


def _companions(base: Checkpoint, agents: Mapping[str, Checkpoint], name: str) -> Checkpoint:
    if "base" in agents:
        raise InputError("an agent cannot be named 'base'; give it another name")
    choices = {**agents, "base": base}
    if name not in choices:
        raise InputError(f"tokenizer from '{name}': no such agent{closest(name, choices)}; use base or an agent's name")
    return choices[name]


def _still_needed(out: Path, layout: Layout) -> int:
    staging = staging_directory(out)
    present = sum(file.stat().st_blocks * 512 for file in staging.glob("model/*"))
    return max(0, layout.size - present) + (1 << 20)


def _identity(
    digests: Mapping[str, CheckpointDigest],
    method: ResolvedMethod,
    options: MergeOptions,
    tokenizer_from: str,
    resize: Resize,
) -> dict[str, Any]:
    """Return all that the output's bytes depend on."""
    return {
        "merge_version": MERGE_VERSION,
        "inputs": [[name, digest.digest] for name, digest in digests.items()],
        **method.to_json(),
        "dtype": options.dtype,
        "rounding": options.rounding,
        "seed": options.seed,
        "shard_size": options.shard_size,
        "tokenizer_from": tokenizer_from,
        "resize": resize,
    }


def _prepare(staging: Path, identity: Mapping[str, Any]) -> None:
    """Leave in `staging` only what an earlier run with the same identity finished.

    The inputs' status is part of it: they may have been others meanwhile and what they were again.
    """
    marker = staging / "identity.json"
    if _read_json(marker) != identity:
        _keep_only(staging, ())
        write_json(marker, identity)
    for name in ("model", "records"):
        (staging / name).mkdir(exist_ok=True)


def _counted_before(rule: Rule, overlap: Overlap | None) -> Statistics:
    """Return what an earlier `extract` counted, if it counted what the rule's mask says, of the same agents."""
    if overlap is None or overlap.mask != rule.mask or overlap.agents != rule.agents:
        return Statistics()
    return Statistics({OverlapCounts(rule.mask): overlap})


def _recall_statistics(staging: Path, rule: Rule) -> Statistics | None:
    try:
        return Statistics.from_json(rule.passes, _read_json(staging / _STATISTICS))
    except (KeyError, TypeError, ValueError):
        return None


def _keep_only(directory: Path, names: Collection[str]) -> None:
    for entry in directory.iterdir():
        if entry.name in names:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _refuse_changed(before: Mapping[Path, str], checkpoints: tuple[Checkpoint, ...]) -> None:
    for checkpoint in checkpoints:
        if fingerprint(checkpoint) != before[checkpoint.path]:
            raise RammergeError(f"{checkpoint.path} changed while it was merged; run again once nothing writes to it")


def _describe(
    session: Session,
    rule: Rule,
    identity: Mapping[str, Any],
    digests: Mapping[str, CheckpointDigest],
    statistics: Statistics,
    records: list[ShardRecord],
) -> tuple[dict[str, Any], list[str]]:
    """Return the content of rammerge.json, nothing of which depends on when, where or how fast the merge ran."""
    counts = [sum(column) for column in zip(*(record.counts for record in records), strict=True)]
    survival = Survival.from_counts(counts, len(rule.agents))
    manifest: dict[str, Any] = {
        "rammerge": __version__,
        "recipe": {key: value for key, value in identity.items() if key not in ("inputs", "merge_version")},
        "method": {**rule.to_json(), "source": rule.settled.method.source},
        "sources": {
            name: {
                "source": checkpoint.source,
                "revision": checkpoint.revision,
                "digest": digests[name].digest,
                "files": {file: asdict(entry) for file, entry in digests[name].files.items()},
            }
            for name, checkpoint in {"base": session.base, **session.agents}.items()
        },
        "elements": session.elements,
        "lambda": rule.factors(statistics),
        "rounding_report": survival.to_json(rule.agents, rule.improves_on),
        "versions": {name: version(name) for name in ("torch", "safetensors", "huggingface_hub")},
    }
    overlap = statistics.find(OverlapCounts(rule.mask))
    if overlap is not None:
        manifest["overlap"] = overlap.summary()
    misfits = rule.misfits(survival.active, survival.unique, session.elements)
    return manifest, [*misfits, *_losses(rule, survival, session.options.dtype)]


def _losses(rule: Rule, survival: Survival, dtype: str) -> list[str]:
    """Return a sentence for each thing that the cast to the output dtype erased."""
    losses = []
    unique = sum(survival.unique)
    if rule.improves_on and unique and survival.distinct < DISTINCT_SHARE * unique:
        losses.append(
            f"in {dtype} this {rule.name} differs from plain {rule.improves_on} in {survival.distinct / unique:.2%} "
            "of the unique elements: rounding erases its rescaling; use dtype float32 or rounding stochastic"
        )
    if survival.changed and survival.kept < 0.5 * survival.changed:
        losses.append(
            f"only {survival.kept / survival.changed:.0%} of the merged change survives the cast to {dtype}; "
            "use dtype float32 or rounding stochastic"
        )
    return losses


class _Clock:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.laps[stage] = now - self._last
        self._last = now
