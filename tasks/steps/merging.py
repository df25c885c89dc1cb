"""The steps that merge: one variant, or several in one read of the models."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

from rammerge import store
from rammerge.checkpoints.checkpoint import open_checkpoint
from rammerge.checkpoints.family import Family
from rammerge.engine.options import MergeOptions
from rammerge.publishing.identity import MERGE_VERSION
from rammerge.publishing.making import merge_together as merge_variants
from rammerge.publishing.report import MergeReport
from rammerge.recipe import Compute, Output
from rammerge.store import Entry
from rammerge.system.atomic import write_json
from tasks.runtime.models import expect_models
from tasks.runtime.result import Result
from tasks.runtime.step import step
from tasks.runtime.turns import merging_on
from tasks.steps.activations import Recorded
from tasks.steps.collecting import Part, collect
from tasks.steps.computing import merge_options, report_progress
from tasks.steps.methods import MethodRef
from tasks.steps.overlap import OverlapResult
from tasks.steps.packing import is_usable
from tasks.steps.sources import Groups, Model, digests, open_family


class Merged(Model):
    """A variant's model directory.

    Attributes:
        factors: each agent's lambda, where the method has one for the whole model.
        warnings: what the user should know.
    """

    factors: dict[str, float]
    warnings: list[str]

    @classmethod
    def read(cls, entry: Entry) -> Self:
        """Return the result that `merge` wrote."""
        report = json.loads((entry.path / "report.json").read_text(encoding="utf-8"))
        return cls(path=entry.path / "model", **report)

    def holds(self) -> bool:
        """Return whether the model has its files, or can be unpacked."""
        return is_usable(self)


class Together(Result):
    """What `merge_together` did.

    Attributes:
        entries: the keys of all variants.
        made: the keys of those that were not there.
    """

    entries: list[str]
    made: list[str]

    @classmethod
    def read(cls, entry: Entry) -> Self:
        """Return the result that `merge_together` wrote."""
        content = json.loads((entry.path / "together.json").read_text(encoding="utf-8"))
        return cls(path=entry.path, digest=entry.digest, **content)

    def holds(self) -> bool:
        """Return whether all variants are still in the store."""
        return all(store.find(merge.kind, key) or store.has(merge.kind, key) for key in self.entries)

    def found(self) -> Self:
        """Return the result of an earlier run, in which nothing was made now."""
        return self.model_copy(update={"made": []})

    def has_made(self, key: str) -> bool:
        """Tell whether the variant with that key was not there before."""
        return key in self.made


@step(
    "merge",
    version=MERGE_VERSION,
    run_name="merge {name}",
    result=Merged,
    ignore=["name", "compute", "overlap", "activations", "together", "parts"],  # the last four follow from the others
    work="merge",
)
def merge(
    out: Path,
    name: str,
    base: Model,
    agents: Mapping[str, Model],
    groups: Groups,
    method: MethodRef,
    output: Output,
    compute: Compute,
    overlap: OverlapResult,
    activations: Recorded | None = None,
    together: Together | None = None,
    parts: Sequence[Part] = (),
) -> None:
    """Merge the agents into the base by `method`, into the model directory `out/model`.

    If `together` made it, or an earlier run, there is nothing left to do; `parts` made its shards.
    """
    collect(parts, out / "model", name)
    family = open_family(base, agents, groups, output.resize)
    for _ in write_merges(family, {out: method}, output, compute, overlap, activations):
        pass


@step(
    "merge_together",
    version=MERGE_VERSION,
    run_name="merge together",
    result=Together,
    ignore=["overlap", "compute", "parts"],
    work="merge",
)
def merge_together(
    out: Path,
    base: Model,
    agents: Mapping[str, Model],
    groups: Groups,
    methods: Mapping[str, MethodRef],
    output: Output,
    compute: Compute,
    overlap: OverlapResult,
    parts: Sequence[Part] = (),
) -> None:
    """Merge the agents into the base by several methods in one read, for the steps `merge` that follow.

    Each variant is an output of its own in the store. Those that are there already are not made again.
    """
    common = {"base": base, "agents": agents, "groups": groups, "output": output}

    def build(directories: Mapping[str, Path]) -> Iterator[str]:
        family = open_family(base, agents, groups, output.resize)
        names = {directory: name for name, directory in directories.items()}
        wanted = {directory: methods[name] for directory, name in names.items()}
        called = {directory: f"variant '{name}'" for directory, name in names.items()}
        for name, directory in directories.items():
            collect(parts, directory / "model", name)
        yield from (names[made] for made in write_merges(family, wanted, output, compute, overlap, names=called))

    given = {name: {**common, "method": method} for name, method in methods.items()}
    entries, made = merge.make_together(given, build)
    write_json(out / "together.json", {"entries": entries, "made": made})


def write_merges(
    family: Family,
    methods: Mapping[Path, MethodRef],
    output: Output,
    compute: Compute,
    overlap: OverlapResult,
    activations: Recorded | None = None,
    names: Mapping[Path, str] | None = None,
) -> Iterator[Path]:
    """Merge into the directories that are given, and yield each as soon as it has its model and its report.

    `names` are what an error calls them.
    """
    expect_models()  # a new model will be evaluated
    with merging_on(compute.merge_on) as device:
        reports = _reports(family, methods, merge_options(output, compute, device), output, overlap, activations, names)
        for report in reports:
            digest, content = digests(open_checkpoint(report.path), report.manifest.files)
            facts = {"digest": digest, "content": content, "warnings": list(report.warnings)}
            out = report.path.parent
            write_json(out / "report.json", facts | {"factors": dict(report.manifest.factors or {})})
            yield out


def _reports(
    family: Family,
    methods: Mapping[Path, MethodRef],
    options: MergeOptions,
    output: Output,
    overlap: OverlapResult,
    activations: Recorded | None,
    names: Mapping[Path, str] | None,
) -> Iterator[MergeReport]:
    return merge_variants(
        family,
        {out / "model": method.resolved() for out, method in methods.items()},
        options,
        overlap=overlap.whole(),
        activations=activations.opened() if activations else None,
        tokenizer_from=output.tokenizer,
        force=True,  # a kill may have come between this and the store's own rename
        progress=report_progress(),
        names={out / "model": name for out, name in (names or {}).items()},
    )
