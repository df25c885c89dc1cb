"""From a family and methods to finished model directories.

Statistics that methods need take a read before the merge, or two, which methods that are merged together share. Methods
on whole matrices read by themselves, and so do parts of the methods if memory or open files do not suffice for all.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rammerge.activations.activations import Activations
from rammerge.checkpoints.family import Family
from rammerge.engine.options import MergeOptions
from rammerge.engine.passes.parts import Rounds
from rammerge.engine.progress import OnProgress
from rammerge.errors import InputError
from rammerge.overlap import Overlap
from rammerge.publishing.counting import counted
from rammerge.publishing.grouping import note_of
from rammerge.publishing.report import MergeReport
from rammerge.publishing.stages import Stages
from rammerge.rules import ResolvedMethod


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
    stages = Stages(family, options or MergeOptions(), overlap, activations, tokenizer_from, force, progress)
    groups = stages.divided(methods)
    failed: dict[Path, InputError] = {}
    for group in groups:
        failed |= yield from stages.merge(group.rules, note_of(groups))
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
    stages = Stages(family, options, overlap, None, tokenizer_from, force=False, progress=progress, known=known)
    for group in stages.divided(methods):
        stages.merge_part(group.rules, stages.layout.part(*part))
