"""The library's work as steps of the pipeline: overlap, merge and smoke test."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from rammerge import store
from rammerge.checkpoints.checkpoint import open_checkpoint
from rammerge.checkpoints.family import Family
from rammerge.checkpoints.mergeable import Resize
from rammerge.engine.options import MergeOptions
from rammerge.engine.passes import measuring
from rammerge.engine.session import Progress
from rammerge.errors import RammergeError
from rammerge.overlap import Overlap
from rammerge.publishing.identity import MERGE_VERSION
from rammerge.publishing.making import merge_together as merge_variants
from rammerge.publishing.report import MergeReport
from rammerge.recipe import Compute, Output
from rammerge.rules import ResolvedMethod, restore
from rammerge.store import Entry
from rammerge.system.atomic import write_json
from rammerge.system.sizes import parse_size
from tasks.runtime.models import expect_models, model_process
from tasks.runtime.progress import progress
from tasks.runtime.result import Result
from tasks.runtime.step import step
from tasks.runtime.turns import Claim, claim_of, merging_on
from tasks.steps.activations import PromptsRef, Recorded
from tasks.steps.collecting import Part, collect
from tasks.steps.packing import in_files, is_usable
from tasks.steps.sources import Checked, Groups, Model, digests, open_family


class MethodRef(BaseModel):
    """A variant's method with every parameter settled, as `rammerge.rules.resolve` returns it.

    Attributes:
        name, preset, params: what was chosen.
        code: a digest of the code of a method that is not rammerge's own.
        weights, tensors, then: what is done differently with some agents and tensors, and what is done with the result,
            as `ResolvedMethod.to_json` gives it.
        whole_matrices: whether it merges whole matrices, and so reads the models by itself.
        prompts: what the base reads, for a method that needs data.
        trusted: modules whose code the recipe trusts.
        directory: the recipe's, where a module may be.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    preset: str | None
    params: dict[str, Any]
    code: str | None = None
    weights: dict[str, float] = {}
    tensors: list[dict[str, Any]] = []
    then: list[dict[str, Any]] = []
    prompts: PromptsRef | None = None
    whole_matrices: bool = False
    trusted: tuple[str, ...] = ()
    directory: Path | None = None

    @classmethod
    def of(cls, settled: ResolvedMethod, *, trusted: Sequence[str], directory: Path) -> Self:
        """Return a method that can be found again in a different process."""
        return cls(
            name=settled.name,
            preset=settled.preset,
            params=dict(settled.params),
            code=settled.method.code,
            weights=dict(settled.weights),
            tensors=[rule.to_json() for rule in settled.tensors],
            then=[step.to_json() for step in settled.then],
            prompts=PromptsRef.of(settled.prompts) if settled.prompts else None,
            whole_matrices=settled.whole_matrices,
            trusted=tuple(trusted),
            directory=directory,
        )

    @property
    def identity(self) -> dict[str, Any]:
        """What was chosen, and the code of a method of the user's own; where it is found does not count."""
        given = {key for key in ("code", "weights", "tensors", "then") if getattr(self, key)}
        content = self.model_dump(mode="json", include={"name", "preset", "params", *given})
        return content | ({"prompts": self.data} if self.prompts else {})

    @property
    def data(self) -> str:
        """What identifies the method's prompts; empty for a method that needs no data."""
        return self.prompts.sha256 if self.prompts else ""

    def resolved(self) -> ResolvedMethod:
        """Return the method as the library takes it.

        Raises:
            RammergeError: the method's code or its prompts are no longer what they were when the run was planned.
        """
        found = restore(
            self.name,
            self.preset,
            self.params,
            weights=self.weights,
            tensors=self.tensors,
            then=self.then,
            prompts=self.prompts.read() if self.prompts else None,
            trusted=self.trusted,
            directory=self.directory,
        )
        if found.method.code != self.code:
            raise RammergeError(f"the code of method '{self.name}' changed after the run was planned; run again")
        return found


def said_of(methods: Mapping[str, MethodRef], sentences: Callable[[ResolvedMethod], Sequence[str]]) -> list[str]:
    """Return what `sentences` say of variants' methods, each once with the names of its variants."""
    said: dict[str, list[str]] = {}
    for name, method in methods.items():
        for sentence in sentences(method.resolved()):
            said.setdefault(sentence, []).append(name)
    return [f"{', '.join(names)}: {sentence}" for sentence, names in said.items()]


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


@step(
    "extract",
    version=measuring.OVERLAP_VERSION,
    run_name="extract task vectors",
    result=OverlapResult,
    ignore=["checked", "compute"],
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
) -> None:
    """Count the elements that each agent changed, alone or with others, into `overlap.json` (RAM paper, Sec. 3)."""
    family = open_family(base, agents, groups, resize)
    with merging_on(compute.merge_on) as device:
        options = MergeOptions(**_machine(compute, device))
        overlap = measuring.measure_overlap(family, options=options, progress=report_progress())
    write_json(out / "overlap.json", overlap.to_json())
    write_json(out / "warnings.json", overlap.warnings())


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


class Smoked(Result):
    """The text of a short generation, which proves that transformers loads the model and can generate with it."""

    text: str

    @classmethod
    def read(cls, entry: Entry) -> Self:
        """Return the result that `smoke` wrote."""
        text = json.loads((entry.path / "smoke.json").read_text("utf-8"))["text"]
        return cls(path=entry.path, digest=entry.digest, text=text)


def _claim(*, model: Model, compute: Compute, **_: Any) -> Claim:
    return claim_of(model.path, compute.evaluate_on)


@step(
    "smoke",
    version=1,
    run_name="smoke {name}",
    result=Smoked,
    ignore=["name", "compute"],
    runs_a_model=_claim,
    work="evaluate",
)
def smoke(out: Path, name: str, model: Model, compute: Compute) -> None:
    """Check that transformers loads the model, that its logits are finite and that it generates; write `smoke.json`.

    Raises:
        RammergeError: one of these fails; then nothing is registered.
    """
    try:
        claim = _claim(model=model, compute=compute)
        with in_files(model) as whole, model_process(claim) as process:
            text, finite = process.ask("try_out", model_dir=str(whole.path), device=compute.kind_of_evaluation)
    except RammergeError as error:
        raise RammergeError(f"the merge '{name}' does not run in transformers: {error}") from error
    if not finite:
        raise RammergeError(f"the merge '{name}' at {model.path} gives logits that are not finite; inspect the agents")
    write_json(out / "smoke.json", {"text": text})


def merge_options(output: Output, compute: Compute, device: str | None = None) -> MergeOptions:
    """Return the engine's options for a recipe's sections, on a `device` other than the recipe's if one is given."""
    return MergeOptions(
        dtype=output.dtype,
        rounding=output.rounding,
        seed=output.seed,
        shard_size=parse_size(output.shard_size),
        **_machine(compute, device or compute.merge_on),
    )


def _machine(compute: Compute, device: str) -> dict[str, Any]:
    """Return the settings that do not change a byte of the result."""
    limits = {"memory": compute.memory, "device_memory": compute.device_memory}
    return {"device": device, **{name: parse_size(size) for name, size in limits.items() if size}}


def report_progress() -> Callable[[Progress], None]:
    """Return what the engine calls, from threads of its own, to say how far it is."""
    report = progress()
    return lambda state: report(state.done / max(1, state.total), state.stage)
