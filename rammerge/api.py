"""The library's front door: what `import rammerge` offers."""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, overload

from rammerge.activations.prompts import Prompts
from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.checkpoints.family import Family, Source
from rammerge.checkpoints.fetch import fetch
from rammerge.checkpoints.mergeable import Resize
from rammerge.engine.options import Compile, Dtype, MergeOptions
from rammerge.engine.passes import measuring
from rammerge.engine.progress import OnProgress
from rammerge.errors import InputError, check_choice
from rammerge.numerics.masks import MaskMode, mask_from
from rammerge.numerics.rounding import Rounding
from rammerge.overlap import Overlap
from rammerge.publishing import manifest
from rammerge.publishing.into import merge_into
from rammerge.publishing.making import merge_family
from rammerge.publishing.manifest import Manifest
from rammerge.publishing.report import MergeReport, Trial
from rammerge.publishing.room import check_output
from rammerge.recipe import Recipe, load, name_members
from rammerge.rules import Method, ResolvedMethod, resolve
from rammerge.rules.listing import MethodListing, list_methods
from rammerge.system.sizes import given_size

Agents = Mapping[str, Source | Sequence[Source]]


@overload
def merge(
    base: Source | Family, agents: Agents | None = None, *, out: str | Path, into: None = None, **settings: Any
) -> MergeReport: ...


@overload
def merge(
    base: Source | Family, agents: Agents | None = None, *, out: None = None, into: object, **settings: Any
) -> Trial: ...


def merge(
    base: Source | Family,
    agents: Agents | None = None,
    *,
    out: str | Path | None = None,
    into: object = None,
    method: str | Method | ResolvedMethod = "ram",
    preset: str | None = None,
    weights: Mapping[str, float] | None = None,
    tensors: Sequence[Mapping[str, Any]] = (),
    then: Sequence[str | Mapping[str, Any]] = (),
    prompts: str | Path | None = None,
    dtype: Dtype = "float32",
    rounding: Rounding = "nearest",
    seed: int = 0,
    shard_size: int | str = "5GB",
    tokenizer: str = "base",
    resize: Resize = "refuse",
    device: str = "cpu",
    memory: int | str | None = None,
    device_memory: int | str | None = None,
    threads: int | None = None,
    compile: Compile = "auto",
    overlap: Overlap | None = None,
    force: bool = False,
    progress: OnProgress | None = None,
    **parameters: Any,
) -> MergeReport | Trial:
    """Merge agents into one model directory that transformers and vLLM load as it is, or into a loaded model.

    `out` appears whole or not at all. A merge that was killed is taken up by the same call, and ends with the same
    bytes. With `into` nothing is written: the model's parameters get the bytes of the file.

    Example:
        >>> rammerge.merge("base", {"tool": "tool", "code": "org/code"}, method="ram_plus", r=0.1, out="merged")

    Args:
        base: the model that the agents were trained from: a directory, a hub id `org/name[@revision]`, or a checkpoint;
            or a family, which has the agents and `resize`.
        agents: name -> agent, likewise; their order is the order of summation. A list of checkpoints of one domain is
            averaged first, while it is read.
        out: the directory to make.
        into: a torch module, such as a transformers model, to merge into instead; its dtype must be `dtype`.
        method: a name from `rammerge.methods()`, or a method of your own.
        preset: a named set of the method's parameters.
        weights: agent -> factor of its task vector; the others have 1.
        tensors: what is done with some tensors instead; the first match holds. `{"match": "*embed*", "use": "base"}`
            copies them from the base or an agent, `{"match": "*.[0-9].*", "params": {"r": 0.0}}` merges with other
            parameters.
        then: steps after the method, such as `{"svc": {"alpha": 0.1}}`, in their order.
        prompts: a file of unlabeled prompts, for a method that needs data: `.txt` with one on each line, or `.jsonl`
            with a `prompt` on each line. The base is loaded and reads them.
        dtype: of the output's float tensors.
        rounding: how values are rounded to it.
        seed: of stochastic rounding, and of methods that draw random numbers.
        shard_size: largest size of an output shard: bytes, or text such as "5GB".
        tokenizer: whose tokenizer to copy: `base`, or an agent's name.
        resize: `refuse` agents that appended vocabulary rows, or merge the rows that are `common` with the base.
        device: cpu, cuda or cuda:N.
        memory: limit of the process's resident memory: bytes, or text such as "800MiB".
        device_memory: limit of what blocks and matrices take on a GPU, likewise; default: half of what is free there.
        threads: worker threads; default: one for each processor.
        compile: compiled functions give the same bytes, faster: `auto`, `always` or `never`.
        overlap: what `measure_overlap` returned for the same checkpoints; it may save a pass.
        force: replace an existing `out`.
        progress: called from worker threads.
        parameters: the method's own, over those of the preset.

    Raises:
        InputError: an argument is wrong, found before work begins; or a NaN or an infinity in a model.
        RammergeError: the disk is full, or an input changed during the merge.
    """
    chosen = _settle(method, preset, parameters, weights, tensors, then, prompts)
    sizes = _sizes(shard_size=shard_size, memory=memory, device_memory=device_memory)
    options = MergeOptions(dtype, rounding, seed, device=device, threads=threads, compile=compile, **sizes)
    _check_target(out, into, force=force)
    family = _family(base, agents, resize)
    if out is None:
        return merge_into(into, family, chosen, options, overlap=overlap, progress=progress)
    return merge_family(
        family, chosen, Path(out), options, overlap=overlap, tokenizer_from=tokenizer, force=force, progress=progress
    )


def measure_overlap(
    base: Source,
    agents: Agents,
    *,
    mask: MaskMode = "abs",
    epsilon: float = 1e-5,
    eta: float = 1e-3,
    ulps: int = 1,
    densities: bool = True,
    ranks: bool = False,
    resize: Resize = "refuse",
    device: str = "cpu",
    memory: int | str | None = None,
    device_memory: int | str | None = None,
    threads: int | None = None,
    progress: OnProgress | None = None,
) -> Overlap:
    """Count which elements each agent changed, alone or with others. The result prints as a table.

    Args:
        base: the model that the agents were trained from: a directory, a hub id `org/name[@revision]`, or a checkpoint.
        agents: name -> agent, likewise; see `merge`.
        mask: what counts as changed (see rammerge.numerics.masks): `abs`, `exact`, `relative` or `ulp`.
        epsilon: threshold of `abs`.
        eta: threshold of `relative`.
        ulps: threshold of `ulp`.
        densities: whether to measure densities by several rules too, which takes another pass.
        ranks: whether to measure how many directions each agent's changes have, which takes longer than all the rest.
        resize: see `merge`.
        device: cpu, cuda or cuda:N.
        memory: limit of the process's resident memory: bytes, or text such as "800MiB".
        device_memory: limit of what blocks and matrices take on a GPU, likewise; default: half of what is free there.
        threads: worker threads; default: one for each processor.
        progress: called from worker threads.

    Raises:
        InputError: an argument is wrong, or a NaN or an infinity in a model.
    """
    check_choice("mask", mask, get_args(MaskMode))
    options = MergeOptions(device=device, threads=threads, **_sizes(memory=memory, device_memory=device_memory))
    family, rule = _open_family(base, agents, resize), mask_from(mask, epsilon, eta, ulps)
    return measuring.measure_overlap(family, rule, options, densities=densities, ranks=ranks, progress=progress)


def methods() -> MethodListing:
    """Return the merge methods with their parameters, defaults, presets and sources: plain data that prints as text."""
    return list_methods()


def verify(directory: str | Path) -> Manifest:
    """Check every file of a merged model against the SHA-256 recorded when it was written; return the record.

    Raises:
        InputError: the directory has no readable rammerge.json.
        RammergeError: a file is missing, differs or was added.
    """
    return manifest.verify(Path(directory))


def load_recipe(path: str | Path) -> Recipe:
    """Read and check a recipe.

    Raises:
        InputError: names file, line, key and the nearest valid key.
    """
    return load(Path(path))


def open_checkpoint(source: str | Path, *, revision: str | None = None, base: Checkpoint | None = None) -> Checkpoint:
    """Open a model directory or a hub id `org/name[@revision]`, converted to safetensors if need be.

    Args:
        source: the directory or hub id.
        revision: branch, tag or commit of a hub id.
        base: what an adapter or a trainer's checkpoint was trained from.

    Raises:
        InputError: the model does not exist or cannot be used.
        RammergeError: the hub did not answer; the same call may succeed later.
    """
    return fetch(str(source), revision, base=base)


def _check_target(out: str | Path | None, into: object, *, force: bool) -> None:
    if (out is None) == (into is None):
        raise InputError("give `out`, a directory to make, or `into`, a loaded model; one of the two")
    if out is not None:
        check_output(Path(out), force=force, needed_bytes=0)


def _family(base: Source | Family, agents: Agents | None, resize: Resize) -> Family:
    if isinstance(base, Family):
        if agents is not None:
            raise InputError("a family has its agents already; give no others")
        return base
    return _open_family(base, agents or {}, resize)


def _open_family(base: Source, agents: Agents, resize: Resize) -> Family:
    listed: dict[str, Source | list[Source]] = {
        name: given if isinstance(given, str | Path | Checkpoint) else list(given) for name, given in agents.items()
    }
    members: dict[str, Source]
    members, groups = name_members(listed)
    return Family.open(base, members, groups=groups, resize=resize)


def _settle(
    method: str | Method | ResolvedMethod,
    preset: str | None,
    parameters: Mapping[str, Any],
    weights: Mapping[str, float] | None,
    tensors: Sequence[Mapping[str, Any]],
    then: Sequence[str | Mapping[str, Any]],
    prompts: str | Path | None,
) -> ResolvedMethod:
    if isinstance(method, ResolvedMethod):
        said = {"preset": preset, "weights": weights, "tensors": tensors, "then": then, "prompts": prompts}
        given = [name for name, value in said.items() if value]
        if extra := next(iter([*parameters, *given]), None):
            raise InputError(f"the method '{method.name}' is settled already; give '{extra}' to `resolve` instead")
        return method
    also = inspect.signature(merge).parameters
    read = None if prompts is None else Prompts.read(Path(prompts))
    return resolve(method, preset, parameters, weights=weights, tensors=tensors, then=then, prompts=read, also=also)


def _sizes(**given: int | str | None) -> dict[str, Any]:
    """Return in bytes what was given; for the rest `MergeOptions` has defaults."""
    return {
        name: given_size(size, f"{name} {size!r}") if isinstance(size, str) else size
        for name, size in given.items()
        if size is not None
    }
