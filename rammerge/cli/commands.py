"""Commands of the library alone: merge, inspect, methods, pack, unpack, verify."""

import json
from pathlib import Path
from typing import Annotated

import typer

from rammerge.cli import options
from rammerge.cli.packing import pack, unpack, verify_patch
from rammerge.cli.parsing import name_agents, parse_method, split_groups
from rammerge.cli.terminal import progress_display, say
from rammerge.errors import InputError
from rammerge.system.sizes import given_size

_PANEL = "Models"  # of the help


def add_commands(app: typer.Typer) -> None:
    """Add this module's commands to the program."""
    for command in (inspect, merge, methods, pack, unpack, verify):
        app.command(command.__name__, rich_help_panel=_PANEL)(command)


def merge(
    base: options.Base,
    agent: options.Agents,
    out: options.Out,
    method: options.Method = "ram",
    preset: options.Preset = None,
    set_: options.Parameters = None,
    weight: options.Weights = None,
    tensors: options.TensorRules = None,
    then: options.Then = None,
    prompts: options.PromptFile = None,
    trust: options.Trust = None,
    resize: options.Resize = "refuse",
    dtype: options.Dtype = "float32",
    rounding: options.Rounding = "nearest",
    seed: options.Seed = 0,
    shard_size: options.ShardSize = "5GB",
    tokenizer: options.Tokenizer = "base",
    force: options.Force = False,
    device: options.Device = "cpu",
    memory: options.Memory = None,
    device_memory: options.DeviceMemory = None,
    threads: options.Threads = None,
    compile_: options.Compile = "auto",
) -> None:
    """Merge agents into one model directory that transformers and vLLM load as it is."""
    chosen = parse_method(
        method, preset, settings=set_, weights=weight, tensors=tensors, then=then, prompts=prompts, trusted=trust
    )
    size, limit = given_size(shard_size, f"--shard-size {shard_size!r}"), _limit("--memory", memory)
    from rammerge.cli import merging
    from rammerge.engine.options import MergeOptions

    on_gpu = _limit("--device-memory", device_memory)
    how = MergeOptions(dtype, rounding, seed, size, device, limit, threads, compile_, on_gpu)
    merging.merge(base, name_agents(agent), out, chosen, how, resize=resize, tokenizer=tokenizer, force=force)


def inspect(
    base: options.Base,
    agents: options.NamedAgents,
    json_file: options.JsonFile = None,
    mask: options.Mask = "abs",
    epsilon: options.Epsilon = 1e-5,
    eta: options.Eta = 1e-3,
    ulps: options.Ulps = 1,
    rank: options.Ranks = False,
    device: options.Device = "cpu",
    memory: options.Memory = None,
    device_memory: options.DeviceMemory = None,
    threads: options.Threads = None,
    resize: options.Resize = "refuse",
) -> None:
    """Show how densely each agent changed the base, how the changes overlap, and which method is likely to win."""
    from rammerge.checkpoints.family import Family
    from rammerge.cli.printing import print_overlap
    from rammerge.engine.options import MergeOptions
    from rammerge.engine.passes.measuring import measure_overlap
    from rammerge.numerics.masks import mask_from

    on_gpu = _limit("--device-memory", device_memory)
    how = MergeOptions(device=device, memory=_limit("--memory", memory), threads=threads, device_memory=on_gpu)
    members, groups = split_groups(name_agents(agents))
    family = Family.open(base, members, groups=groups, resize=resize, progress=say)
    with progress_display() as progress:
        overlap = measure_overlap(family, mask_from(mask, epsilon, eta, ulps), how, ranks=rank, progress=progress)
    if json_file is not None:
        from rammerge.overlap.advisor import advice_json
        from rammerge.system.atomic import write_json

        found = overlap.to_json() | {"advice": advice_json(overlap.features())}
        if str(json_file) == "-":
            print(json.dumps(found, indent=2))
            return
        write_json(json_file, found)
    print_overlap(overlap)


def methods(json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the merge methods with their parameters, defaults, presets and sources."""
    from rammerge.rules.listing import list_methods

    listing = list_methods()
    if json_output:
        print(json.dumps(listing, indent=2))
        return
    from rammerge.cli.printing import print_methods

    print_methods(listing)


def verify(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="A model directory that rammerge wrote, or a patch.")
    ],
    base: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="The base of a patch: check also that unpacking gives the agent's files."),
    ] = None,
) -> None:
    """Check every file of a merged model, or of a patch, against the SHA-256 recorded when it was written."""
    from rammerge.checkpoints.patched.place import is_patch

    if is_patch(directory):
        verify_patch(directory, base)
        return
    if base is not None:
        raise InputError(f"{directory} is not a patch, so it needs no base; leave --base out")
    from rammerge.publishing.manifest import verify as verify_model

    files = verify_model(directory).files
    total = sum(file.size for file in files.values())
    print(f"{directory} is as it was merged: {len(files)} files, {total:,} bytes")


def _limit(option: str, text: str | None) -> int | None:
    return None if text is None else given_size(text, f"{option} {text!r}")
