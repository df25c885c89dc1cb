"""`rammerge init`: write a first recipe for models that are examined first, and check it."""

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.asking import ask_for_agents, ask_for_base, ask_for_suites, check_suites, on_terminal
from flows.cli.completing import complete_suite
from rammerge.cli.parsing import name_agents
from rammerge.cli.terminal import say
from rammerge.errors import InputError
from rammerge.system.paths import expanded

if TYPE_CHECKING:
    from rammerge.recipe import Recipe


def init(
    base: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help=r"What the agents were trained from: a directory, or ORG/NAME\[@REVISION]."),
    ] = None,
    agent: Annotated[
        list[str] | None,
        typer.Option("--agent", metavar="[NAME=]MODEL", help="An agent: a directory, or a hub id. Repeat it."),
    ] = None,
    suite: Annotated[
        list[str] | None,
        typer.Option(
            "--suite",
            metavar="SUITE",
            help="A bundled suite, or a directory. Repeat it.",
            autocompletion=complete_suite,
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the recipe and of the registered model.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The recipe to write.")] = Path("recipe.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write a recipe with comments for your base and agents, ready to run.

    The models are examined first. On a terminal, missing options are asked for; elsewhere base and agents are required.
    """
    check_recipe_file(out, force)
    if on_terminal():
        base = base or ask_for_base()
        agent = agent or ask_for_agents(base)
        suite = suite or ask_for_suites()
    if not base or not agent:
        raise InputError("give --base and at least one --agent, or run this on a terminal, where it asks for them")
    agents, name = name_agents(agent), name or _name_after(base)
    _check_names(name, agents)
    check_suites(suite or [])
    _write(out, base, agents, suite or [], name)


def _write(out: Path, base: str, agents: Mapping[str, str], suites: Sequence[str], name: str) -> None:
    from rammerge.recipe import parse

    text = _draft(out, base, agents, suites, name)
    _check(parse(out, text))
    write_recipe(out, text)
    step = "read it" if suites else "read it, put your own suites into it, set promote to true"
    print(f"{out} is written: {step}, then `rammerge run {shlex.quote(str(out))}`")


def _draft(out: Path, base: str, agents: Mapping[str, str], suites: Sequence[str], name: str) -> str:
    from flows.cli.draft import Draft
    from flows.cli.survey import misspelt, on_hub, survey

    models = (base, *agents.values())
    for doubt in filter(None, map(misspelt, models)):
        say(f"warning: {doubt}")
    sources = {source: source if on_hub(source) else path_in_recipe(source, out) for source in models}
    return Draft(
        name=name,
        file=shlex.quote(str(out)),
        base=sources[base],
        agents={agent: sources[source] for agent, source in agents.items()},
        suites=[path_in_recipe(suite, out) if Path(suite).is_dir() else suite for suite in suites],
        found=None if any(map(on_hub, models)) else survey(base, agents),
        inspect=_inspect_command(base, agents),
    ).text()


def _check(recipe: "Recipe") -> None:
    """Check the recipe as `rammerge check` does, and print the findings."""
    from tasks.runtime.environment import activate, quiet

    activate()
    quiet()
    from flows.run.checking import check
    from flows.run.planning import look_up

    for line in check(look_up(recipe)):
        say(line)


def check_recipe_file(out: Path, force: bool) -> None:
    """Check that a recipe can be written to `out`; InputError names what is in the way."""
    if out.is_dir():
        raise InputError(f"{out} is a directory; give --out the name of a file in it, such as {out / 'recipe.yaml'}")
    if out.exists() and not force:
        raise InputError(f"{out} exists; write to a different --out, or replace it with --force")
    parent = next(parent for parent in out.absolute().parents if parent.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise InputError(
            f"{out} cannot be written, because {parent} is not a directory that you may write; choose a different --out"
        )


def _check_names(name: str, agents: Mapping[str, str]) -> None:
    """Refuse names that a recipe does not allow, and agents with the name of a variant."""
    from rammerge.recipe import is_name
    from rammerge.recipe.section import RESERVED
    from rammerge.rules import METHODS

    allowed = "names have letters, digits, '.', '_' and '-', at most 64"
    if not is_name(name):
        raise InputError(f"'{name}' cannot name a recipe: {allowed}; give a different --name")
    for agent, source in agents.items():
        if agent in METHODS or not is_name(agent):
            why = (
                "a merge has this name"
                if agent in METHODS
                else f"{allowed}, and {', '.join(sorted(RESERVED))} are taken"
            )
            raise InputError(f"'{agent}' cannot name an agent: {why}; give --agent NAME={shlex.quote(source)}")


def write_recipe(out: Path, text: str) -> None:
    """Write the text of a recipe; InputError if the disk refuses."""
    from rammerge.system.atomic import write_text

    try:
        write_text(out, text)
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error.strerror}); choose a different --out") from None


def path_in_recipe(source: str, out: Path) -> str:
    """Return the path of a directory in the recipe at `out`: relative if it is below the recipe's, else absolute.

    A directory below the recipe's moves with it.
    """
    path, directory = _normal(source), _normal(out).parent
    return f"./{path.relative_to(directory)}" if path.is_relative_to(directory) else str(path)


def _name_after(base: str) -> str:
    """Return a valid name for a recipe, made from the base's name."""
    from rammerge.recipe import as_name

    stem = as_name(_normal(base.split("@")[0]).name).rstrip("._-")[:57]
    return f"{stem}-merge" if stem else "merge"


def _normal(path: str | Path) -> Path:
    # normpath rather than resolve: a symbolic link is the user's name for a model, and stays.
    return Path(os.path.normpath(expanded(path).absolute()))


def _inspect_command(base: str, agents: Mapping[str, str]) -> str:
    words = ["rammerge", "inspect", "--base", base, *(f"{name}={source}" for name, source in agents.items())]
    return shlex.join(words)
