"""Commands of the library alone: merge, inspect, methods, verify."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from rammerge.cli.completing import complete_method, complete_preset, complete_tokenizer
from rammerge.cli.parsing import name_agents, parse_option_size, parse_settings, parse_tensor_rules, parse_weights
from rammerge.cli.terminal import progress_display, say

_MODELS = "Models"  # panels of the help
_OUTPUT, _RESOURCES = "Output", "Resources"

Base = Annotated[
    str,
    typer.Option(
        "--base",
        metavar="MODEL",
        help=r"What the agents were trained from: a directory, or ORG/NAME\[@REVISION].",
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Peak resident memory of the process, such as 800MiB.",
        show_default="1GiB",
        rich_help_panel=_RESOURCES,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(metavar="N", help="Worker threads.", show_default="all processors", min=1, rich_help_panel=_RESOURCES),
]
Device = Annotated[str, typer.Option(metavar="DEVICE", help="cpu, cuda or cuda:N.", rich_help_panel=_RESOURCES)]
Resize = Annotated[
    Literal["refuse", "common"],
    typer.Option(
        help="Agents whose vocabulary has grown: refuse them, or merge the rows that they share with the base."
    ),
]


def add_commands(app: typer.Typer) -> None:
    """Add this module's commands to the program."""
    for command in (inspect, merge, methods, verify):
        app.command(command.__name__, rich_help_panel=_MODELS)(command)


def merge(
    base: Base,
    agent: Annotated[
        list[str],
        typer.Option("--agent", metavar="[NAME=]MODEL", help="An agent: a directory, or a hub id. Repeat it."),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The model directory to make.")],
    method: Annotated[
        str, typer.Option("--method", metavar="NAME", help="See `rammerge methods`.", autocompletion=complete_method)
    ] = "ram",
    preset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A named set of the method's parameters.", autocompletion=complete_preset),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A parameter of the method. Repeat it."),
    ] = None,
    weight: Annotated[
        list[str] | None,
        typer.Option("--weight", metavar="AGENT=X", help="A factor of an agent's task vector. Repeat it."),
    ] = None,
    tensors: Annotated[
        list[str] | None,
        typer.Option(
            "--tensors",
            metavar="PATTERN=MODEL",
            help="Tensors to copy from base or an agent; PATTERN=KEY:VALUE,... merges them with other parameters.",
        ),
    ] = None,
    trust: Annotated[
        list[str] | None,
        typer.Option("--trust", metavar="MODULE", help="A module whose code may run, for --method MODULE:NAME."),
    ] = None,
    resize: Resize = "refuse",
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"],
        typer.Option(help="How weights are stored.", rich_help_panel=_OUTPUT),
    ] = "float32",
    rounding: Annotated[
        Literal["nearest", "stochastic"], typer.Option(help="How values are rounded to it.", rich_help_panel=_OUTPUT)
    ] = "nearest",
    seed: Annotated[
        int, typer.Option(metavar="N", help="Seed of stochastic rounding and of DARE.", rich_help_panel=_OUTPUT)
    ] = 0,
    shard_size: Annotated[
        str, typer.Option(metavar="SIZE", help="Largest size of one weight file.", rich_help_panel=_OUTPUT)
    ] = "5GB",
    tokenizer: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Whose tokenizer and chat template to copy: base, or an agent's name.",
            autocompletion=complete_tokenizer,
            rich_help_panel=_OUTPUT,
        ),
    ] = "base",
    force: Annotated[
        bool, typer.Option("--force", help="Replace an existing output.", rich_help_panel=_OUTPUT)
    ] = False,
    device: Device = "cpu",
    memory: Memory = None,
    threads: Threads = None,
    compile_: Annotated[
        Literal["auto", "always", "never"],
        typer.Option("--compile", help="Compiled kernels; the bytes are the same.", rich_help_panel=_RESOURCES),
    ] = "auto",
) -> None:
    """Merge agents into one model directory that transformers and vLLM load as it is."""
    from rammerge.rules import resolve

    chosen = resolve(
        method,
        preset,
        parse_settings(set_ or []),
        weights=parse_weights(weight or []),
        tensors=parse_tensor_rules(tensors or []),
        trusted=trust or (),
        directory=Path.cwd(),
    )
    size, limit = parse_option_size("--shard-size", shard_size), _memory_limit(memory)
    from rich.filesize import decimal

    from rammerge.checkpoints.companions import companions_of
    from rammerge.checkpoints.family import Family
    from rammerge.cli.printing import print_merge
    from rammerge.engine.forecast import forecast
    from rammerge.engine.options import MergeOptions
    from rammerge.publishing.making import merge_family
    from rammerge.publishing.room import check_output

    options = MergeOptions(dtype, rounding, seed, size, device, limit, threads, compile_)
    check_output(out, force=force, needed_bytes=0)
    family = Family.open(base, name_agents(agent), resize=resize, progress=say)
    companions_of(family.sources, tokenizer)
    expected = forecast(family, chosen.bind_to(family), options)
    say(f"forecast: peak memory {expected.memory / 2**20:.0f} MiB, output {decimal(expected.disk)}")
    with progress_display() as progress:
        report = merge_family(family, chosen, out, options, tokenizer_from=tokenizer, force=force, progress=progress)
    print_merge(report)


def inspect(
    base: Base,
    agents: Annotated[
        list[str], typer.Argument(metavar="AGENT", help=r"An agent: \[NAME=]directory, or a hub id. Name each.")
    ],
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write everything as JSON; - for stdout.")
    ] = None,
    mask: Annotated[Literal["abs", "exact", "relative", "ulp"], typer.Option(help="What counts as changed.")] = "abs",
    epsilon: Annotated[float, typer.Option(metavar="X", help="Threshold of --mask abs.", min=0)] = 1e-5,
    eta: Annotated[float, typer.Option(metavar="X", help="Threshold of --mask relative.", min=0)] = 1e-3,
    ulps: Annotated[int, typer.Option(metavar="N", help="Threshold of --mask ulp.", min=1)] = 1,
    device: Device = "cpu",
    memory: Memory = None,
    threads: Threads = None,
    resize: Resize = "refuse",
) -> None:
    """Show how densely each agent changed the base and how the changes overlap."""
    from rammerge.checkpoints.family import Family
    from rammerge.cli.printing import print_overlap
    from rammerge.engine.options import MergeOptions
    from rammerge.engine.passes.measuring import measure_overlap
    from rammerge.numerics.masks import mask_from

    options = MergeOptions(device=device, memory=_memory_limit(memory), threads=threads)
    family = Family.open(base, name_agents(agents), resize=resize, progress=say)
    with progress_display() as progress:
        overlap = measure_overlap(family, mask_from(mask, epsilon, eta, ulps), options, progress=progress)
    if json_file is not None and str(json_file) == "-":
        print(json.dumps(overlap.to_json(), indent=2))
        return
    if json_file is not None:
        from rammerge.system.atomic import write_json

        write_json(json_file, overlap.to_json())
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


def verify(directory: Annotated[Path, typer.Argument(help="A model directory that rammerge wrote.")]) -> None:
    """Check every file of a merged model against the SHA-256 recorded when it was written."""
    from rammerge.publishing.manifest import verify as verify_model

    files = verify_model(directory).files
    total = sum(file.size for file in files.values())
    print(f"{directory} is as it was merged: {len(files)} files, {total:,} bytes")


def _memory_limit(text: str | None) -> int | None:
    return None if text is None else parse_option_size("--memory", text)
