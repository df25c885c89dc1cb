"""`rammerge import`: write the recipe that does what another tool's configuration says."""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.init import check_recipe_file, path_in_recipe, write_recipe
from rammerge.errors import InputError

if TYPE_CHECKING:
    from rammerge.recipe.mergekit import Imported

_LONGEST_NAME = 50


def import_(
    config: Annotated[Path, typer.Argument(help="A configuration of mergekit, a YAML file.", metavar="MERGEKIT.yml")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The recipe to write.")] = Path("recipe.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write the recipe that merges as a configuration of mergekit does; what has no equal is refused with the reason.

    The recipe evaluates nothing until you name suites in it.
    """
    from rammerge.recipe import parse
    from rammerge.recipe.mergekit import translate
    from rammerge.rules import resolve

    check_recipe_file(out, force)
    found = translate(_read(config), str(config))
    text = "\n".join([*_lines(found, config, out), ""])
    for variant in parse(out, text).variants():
        resolve(variant.method, variant.preset, variant.params, weights=variant.weights)
    write_recipe(out, text)
    for note in found.notes:
        print(f"note: {note}")
    print(f"{out} is written: name your suites in it, then `rammerge check {shlex.quote(str(out))}`")


def _read(config: Path) -> Any:
    import yaml

    from rammerge.recipe.reading import MAX_BYTES
    from rammerge.system.reading import read_yaml

    if config.is_file() and config.stat().st_size > MAX_BYTES:
        raise InputError(f"{config} is too large for a configuration of mergekit")
    return read_yaml(config, yaml.SafeLoader)


def _lines(found: "Imported", config: Path, out: Path) -> Iterator[str]:
    from flows.cli.draft import comment
    from rammerge.recipe import as_name, quoted

    yield f"# What {config.name} says to mergekit 0.1.5, as a recipe; docs/recipe.md explains every key."
    for note in found.notes:
        yield from comment(f"Note: {note}.")
    yield f"name: {quoted(as_name(config.stem)[:_LONGEST_NAME] or 'imported')}"
    yield f"base: {_source(found.base, out)}"
    yield "agents:"
    yield from (f"  {quoted(name)}: {_source(source, out)}" for name, source in found.agents.items())
    yield "merges:"
    for number, (key, value) in enumerate(found.merge.items()):
        yield f"  {'- ' if number == 0 else '  '}{key}: {_shown(value)}"
    if found.output:
        yield "output:"
        yield from (f"  {key}: {quoted(value)}" for key, value in found.output.items())
    yield "# To compare and to promote, name suites here and write gates: see docs/suites.md and docs/recipe.md."
    yield "evaluation: none"


def _source(source: str, out: Path) -> str:
    """Return a source as the recipe at `out` writes it: mergekit reads paths from the working directory."""
    from rammerge.recipe import quoted

    return quoted(path_in_recipe(source, out) if Path(source).is_dir() else source)


def _shown(value: Any) -> str:
    from rammerge.recipe import quoted

    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{quoted(name)}: {_shown(item)}" for name, item in value.items()) + "}"
    return quoted(value) if isinstance(value, str) else repr(value)
