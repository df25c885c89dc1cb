"""The options of the library's commands: their types, and what `--help` says of them."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from rammerge.cli.completing import complete_method, complete_preset, complete_tokenizer

_OUTPUT, _RESOURCES = "Output", "Resources"  # panels of the help

Base = Annotated[
    str,
    typer.Option(
        "--base",
        metavar="MODEL",
        help=r"What the agents were trained from: a directory, or ORG/NAME\[@REVISION].",
    ),
]
Agents = Annotated[
    list[str],
    typer.Option(
        "--agent",
        metavar="[NAME=]MODEL",
        help="An agent: a directory, or a hub id. Repeat it. NAME=MODEL,MODEL averages several first.",
    ),
]
NamedAgents = Annotated[
    list[str], typer.Argument(metavar="AGENT", help=r"An agent: \[NAME=]directory, or a hub id. Name each.")
]
Resize = Annotated[
    Literal["refuse", "common"],
    typer.Option(
        help="Agents whose vocabulary has grown: refuse them, or merge the rows that they share with the base."
    ),
]

# The method.
Method = Annotated[
    str, typer.Option("--method", metavar="NAME", help="See `rammerge methods`.", autocompletion=complete_method)
]
Preset = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="A named set of the method's parameters.", autocompletion=complete_preset),
]
Parameters = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A parameter of the method. Repeat it.")
]
Weights = Annotated[
    list[str] | None,
    typer.Option("--weight", metavar="AGENT=X", help="A factor of an agent's task vector. Repeat it."),
]
TensorRules = Annotated[
    list[str] | None,
    typer.Option(
        "--tensors",
        metavar="PATTERN=MODEL",
        help="Tensors to copy from base or an agent; PATTERN=KEY:VALUE,... merges them with other parameters.",
    ),
]
Then = Annotated[
    list[str] | None,
    typer.Option("--then", metavar="STEP[:KEY=VALUE,...]", help="A step after the method, such as svc:alpha=0.1."),
]
PromptFile = Annotated[
    Path | None,
    typer.Option(
        "--prompts", metavar="FILE", help="Unlabeled prompts for a method that needs data: .txt or .jsonl, one a line."
    ),
]
Trust = Annotated[
    list[str] | None,
    typer.Option("--trust", metavar="MODULE", help="A module whose code may run, for --method MODULE:NAME."),
]

# What is written.
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="The model directory to make.")]
Dtype = Annotated[
    Literal["float32", "bfloat16", "float16"], typer.Option(help="How weights are stored.", rich_help_panel=_OUTPUT)
]
Rounding = Annotated[
    Literal["nearest", "stochastic"], typer.Option(help="How values are rounded to it.", rich_help_panel=_OUTPUT)
]
Seed = Annotated[
    int, typer.Option(metavar="N", help="Seed of stochastic rounding and of random methods.", rich_help_panel=_OUTPUT)
]
ShardSize = Annotated[
    str, typer.Option(metavar="SIZE", help="Largest size of one weight file.", rich_help_panel=_OUTPUT)
]
Tokenizer = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Whose tokenizer and chat template to copy: base, or an agent's name.",
        autocompletion=complete_tokenizer,
        rich_help_panel=_OUTPUT,
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing output.", rich_help_panel=_OUTPUT)]

# What it takes.
Device = Annotated[str, typer.Option(metavar="DEVICE", help="cpu, cuda or cuda:N.", rich_help_panel=_RESOURCES)]
Memory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Peak resident memory of the process, such as 800MiB.",
        show_default="1GiB",
        rich_help_panel=_RESOURCES,
    ),
]
DeviceMemory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="What blocks and matrices may take on a GPU, such as 8GiB.",
        show_default="half of what is free there",
        rich_help_panel=_RESOURCES,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(metavar="N", help="Worker threads.", show_default="all processors", min=1, rich_help_panel=_RESOURCES),
]
Compile = Annotated[
    Literal["auto", "always", "never"],
    typer.Option("--compile", help="Compiled kernels; the bytes are the same.", rich_help_panel=_RESOURCES),
]

# What `inspect` counts and where it writes.
JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write everything as JSON; - for stdout.")
]
Ranks = Annotated[
    bool, typer.Option("--rank", help="Measure how many directions the changes have, which takes longer.")
]
Mask = Annotated[Literal["abs", "exact", "relative", "ulp"], typer.Option(help="What counts as changed.")]
Epsilon = Annotated[float, typer.Option(metavar="X", help="Threshold of --mask abs.", min=0)]
Eta = Annotated[float, typer.Option(metavar="X", help="Threshold of --mask relative.", min=0)]
Ulps = Annotated[int, typer.Option(metavar="N", help="Threshold of --mask ulp.", min=1)]
