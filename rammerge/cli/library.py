"""Commands of the library alone: merge, inspect, methods, verify."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rammerge.cli.terminal import progress_display, say
from rammerge.errors import InputError
from rammerge.system.sizes import parse_size

if TYPE_CHECKING:
    from rammerge.api import MergeReport
    from rammerge.checkpoints.checkpoint import Checkpoint
    from rammerge.overlap import Overlap

_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]*)=(.+)", re.DOTALL)

Base = Annotated[str, typer.Option("--base", help="Base model: a directory, or a hub id ORG/NAME[@REVISION].")]
Memory = Annotated[
    str | None, typer.Option(help="Peak resident memory of the process, such as 800MiB.", show_default="1GiB")
]
Threads = Annotated[int | None, typer.Option(help="Worker threads; by default one a processor.", min=1)]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")]
Resize = Annotated[
    Literal["refuse", "common"],
    typer.Option(
        help="Agents that appended vocabulary rows: refuse them, or merge the rows that they share with the base."
    ),
]


def add_commands(app: typer.Typer) -> None:
    """Add this module's commands to the program."""
    app.command("merge")(merge)
    app.command("inspect")(inspect)
    app.command("methods")(methods)
    app.command("verify")(verify)


def merge(
    base: Base,
    agent: Annotated[list[str], typer.Option("--agent", help="An agent: [NAME=]directory or hub id. Repeat it.")],
    out: Annotated[Path, typer.Option("--out", help="Directory to make.")],
    method: Annotated[str, typer.Option("--method", help="See `rammerge methods`.")] = "ram",
    preset: Annotated[str | None, typer.Option(help="A named set of the method's parameters.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="A parameter: r=0.1. Repeat it.")] = None,
    dtype: Annotated[Literal["float32", "bfloat16", "float16"], typer.Option(help="Output dtype.")] = "float32",
    rounding: Annotated[Literal["nearest", "stochastic"], typer.Option(help="How to round to it.")] = "nearest",
    seed: Annotated[int, typer.Option(help="Seed of stochastic rounding and of DARE.")] = 0,
    device: Device = "cpu",
    memory: Memory = None,
    threads: Threads = None,
    shard_size: Annotated[str, typer.Option(help="Largest size of an output shard.")] = "5GB",
    compile_: Annotated[
        Literal["auto", "always", "never"],
        typer.Option("--compile", help="Compiled kernels; the same bytes either way."),
    ] = "auto",
    tokenizer: Annotated[str, typer.Option(help="Whose tokenizer to copy: base, or an agent's name.")] = "base",
    resize: Resize = "refuse",
    force: Annotated[bool, typer.Option("--force", help="Replace an existing output.")] = False,
) -> None:
    """Merge agents into one model directory that transformers and vLLM load as it is."""
    from rammerge.methods import resolve

    chosen = resolve(method, preset, parse_settings(set_ or []))
    size, limit = _bytes("--shard-size", shard_size), _memory_limit(memory)
    from rich.filesize import decimal

    from rammerge.api import MergeOptions, forecast
    from rammerge.api import merge as merge_models
    from rammerge.checkpoints.family import check_mergeable, check_output

    check_output(out, force=force, needed_bytes=0)
    base_model, agents = open_models(base, agent)
    options = MergeOptions(dtype, rounding, seed, size, device, limit, threads, compile_)
    checked = check_mergeable(base_model, agents, resize=resize)
    peak, nbytes = forecast(base_model, checked.agents, chosen, options)
    say(f"forecast: peak memory {peak / 2**20:.0f} MiB, output {decimal(nbytes)}")
    with progress_display() as progress:
        report = merge_models(
            base_model, agents, chosen, out, options,
            tokenizer_from=tokenizer, resize=resize, force=force, progress=progress,
        )  # fmt: skip
    _print_merge(report)


def inspect(
    base: Base,
    agents: Annotated[list[str], typer.Argument(metavar="AGENT...", help="[NAME=]directory or hub id.")],
    json_file: Annotated[Path | None, typer.Option("--json", help="Write everything as JSON; - for stdout.")] = None,
    epsilon: Annotated[float, typer.Option(help="A change counts when it is larger than this.", min=0)] = 1e-5,
    mask: Annotated[Literal["abs", "exact", "relative", "ulp"], typer.Option(help="What counts as changed.")] = "abs",
    eta: Annotated[float, typer.Option(help="Threshold of --mask relative.", min=0)] = 1e-3,
    ulps: Annotated[int, typer.Option(help="Threshold of --mask ulp.", min=1)] = 1,
    device: Device = "cpu",
    memory: Memory = None,
    threads: Threads = None,
    resize: Resize = "refuse",
) -> None:
    """Show how densely each agent changed the base and how the changes overlap."""
    from rammerge.api import MergeOptions, extract
    from rammerge.methods.spec import mask_from

    options = MergeOptions(device=device, memory=_memory_limit(memory), threads=threads)
    rule = mask_from(mask, epsilon, eta, ulps)
    base_model, models = open_models(base, agents)
    with progress_display() as progress:
        overlap = extract(base_model, models, mask=rule, options=options, resize=resize, progress=progress)
    if json_file is not None and str(json_file) == "-":
        print(json.dumps(overlap.to_json(), indent=2))
        return
    if json_file is not None:
        from rammerge.system.atomic import write_json

        write_json(json_file, overlap.to_json())
    _print_overlap(overlap)


def methods(json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the merge methods with their parameters, defaults, presets and sources."""
    from rammerge.methods import METHODS

    described = {
        name: {
            "summary": method.summary,
            "source": method.source,
            "parameters": method.params.model_json_schema().get("properties", {}),
            "presets": {
                preset: {"params": dict(values), "source": method.preset_sources[preset]}
                for preset, values in method.presets.items()
            },
        }
        for name, method in METHODS.items()
    }
    if json_output:
        print(json.dumps(described, indent=2))
    else:
        _print_methods(described)


def verify(directory: Annotated[Path, typer.Argument(help="A model directory that rammerge wrote.")]) -> None:
    """Check every file of a merged model against the SHA-256 recorded when it was written."""
    from rammerge.publishing.publish import verify as verify_model

    manifest = verify_model(directory)
    total = sum(entry["size"] for entry in manifest["files"].values())
    print(f"{directory} is as it was merged: {len(manifest['files'])} files, {total:,} bytes")


def open_models(base: str, agents: Sequence[str]) -> "tuple[Checkpoint, dict[str, Checkpoint]]":
    """Fetch the base and the agents, each given as `[NAME=]SOURCE`; names default to the last part of the source."""
    from rammerge.checkpoints.fetch import fetch

    base_model = fetch(base, progress=say)
    return base_model, {
        name: fetch(source, base=base_model, progress=say) for name, source in name_agents(agents).items()
    }


def name_agents(agents: Sequence[str]) -> dict[str, str]:
    """Return name -> source in the order given; a name that is taken gets a number.

    Raises:
        InputError: the same name was given twice.
    """
    named: dict[str, str] = {}
    for text in agents:
        match = None if Path(text).exists() else _NAMED.fullmatch(text)
        if match and match[1] in {*named, "base"}:
            raise InputError(f"two models are named '{match[1]}'; give the agent another NAME=")
        stem = match[1] if match else Path(text.split("@")[0]).expanduser().absolute().name or "agent"
        taken = {*named, "base"}
        name = next(
            n for number in range(1, len(agents) + 3) if (n := stem if number == 1 else f"{stem}-{number}") not in taken
        )
        named[name] = match[2] if match else text
    return named


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Return the parameters of `--set KEY=VALUE` options; values are read as YAML scalars.

    Raises:
        InputError: not of that form, or a key given twice.
    """
    import yaml

    parsed: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not key or not equals or not value:
            raise InputError(f"--set '{setting}' is not of the form KEY=VALUE, such as r=0.1")
        if key in parsed:
            raise InputError(f"--set {key} is given twice; give it once")
        try:
            parsed[key] = _number(value, yaml.safe_load(value))
        except yaml.YAMLError as error:
            raise InputError(f"--set '{setting}' has no readable value; write it like r=0.1") from error
    return parsed


def _memory_limit(text: str | None) -> int | None:
    return None if text is None else _bytes("--memory", text)


def _bytes(option: str, text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise InputError(f"{option} {text!r}: {error}") from error


def _number(text: str, value: Any) -> Any:
    # YAML 1.1 reads 1e-5, without a point, as a string.
    if isinstance(value, str):
        try:
            return float(text)
        except ValueError:
            return value
    return value


def _print_merge(report: "MergeReport") -> None:
    from rich.console import Console
    from rich.filesize import decimal
    from rich.markup import escape

    manifest = report.manifest
    table = _table("agent", "changed", "unique", "shared", "lambda", "kept after rounding")
    lambdas = manifest["lambda"] or {}
    for name, row in manifest["rounding_report"]["agents"].items():
        counts = [f"{row[key]:,}" for key in ("active", "unique", "shared")]
        factor = f"{lambdas[name]:.4f}" if name in lambdas else "-"
        table.add_row(name, *counts, factor, _percent(row["survived_share"]))
    console = Console(soft_wrap=True)
    console.print(table)
    kept = manifest["rounding_report"]["kept_share"]
    console.print(f"{_percent(kept)} of the merged change is kept in {manifest['recipe']['dtype']}", highlight=False)
    for warning in report.warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}", highlight=False)
    seconds = ", ".join(f"{stage} {value:.1f} s" for stage, value in report.seconds.items())
    console.print(f"{escape(str(report.path))}: {decimal(report.nbytes)} ({seconds})", highlight=False)


def _print_overlap(overlap: "Overlap") -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(soft_wrap=True)
    others = [f"with {k}" for k in range(1, len(overlap.agents))]
    table = _table("agent", "density", "changed", "unique", *others, "rho", title="Overlap")
    for name, row in overlap.summary().items():
        shares = [_percent(count / row["active"] if row["active"] else None) for count in row["co_active"]]
        rho = "inf" if row["rho"] is None else f"{row['rho']:.3f}"
        table.add_row(name, _percent(row["density"]), f"{row['active']:,}", *shares, rho)
    console.print(table)
    epsilons = list(next(iter(overlap.densities.values())).above) if overlap.densities else []
    table = _table("agent", "stored as", *(f"> {e}" for e in epsilons), "> 0.1 %", "bits", title="Density by rule")
    for name, found in overlap.densities.items():
        stored = ", ".join(found.dtypes)
        shares = [_percent(share) for share in (*found.above.values(), found.relative, found.exact)]
        table.add_row(name, stored, *shares)
    console.print(table)
    rule = overlap.mask
    console.print(
        f"{overlap.elements:,} elements; changed means mask {rule.mode}, threshold {rule.threshold:g}", highlight=False
    )
    for warning in overlap.warnings():
        console.print(f"[yellow]warning:[/] {escape(warning)}", highlight=False)


def _print_methods(described: Mapping[str, Any]) -> None:
    from rich.console import Console

    console = Console()
    for name, method in described.items():
        console.print(f"[bold]{name}[/]  {method['summary']}", highlight=False)
        console.print(f"  source: {method['source']}", highlight=False)
        for key, schema in method["parameters"].items():
            choices = f" ({', '.join(schema['enum'])})" if "enum" in schema else ""
            console.print(f"  {key} = {schema['default']}: {schema['description']}{choices}", highlight=False)
        for preset, entry in method["presets"].items():
            values = ", ".join(f"{key} = {value}" for key, value in entry["params"].items())
            console.print(f"  preset {preset}: {values} ({entry['source']})", highlight=False)
        console.print()


def _table(*columns: str, title: str | None = None) -> Any:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    return table


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
