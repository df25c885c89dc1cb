"""Completions of words of the library's commands. The shell itself completes files and directories."""

import typer

from rammerge.cli.parsing import name_agents, split_groups
from rammerge.errors import InputError


def complete_method(incomplete: str) -> list[str]:
    """Return the methods that start with the typed text, those of installed packages too, without loading these."""
    from rammerge.rules import GROUP, METHODS
    from rammerge.system.plugins import entry_points

    return [name for name in (*METHODS, *entry_points(GROUP, what="method")) if name.startswith(incomplete)]


def complete_preset(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the presets of the method on the line that start with the typed text."""
    from rammerge.rules import METHODS

    method = METHODS.get(ctx.params.get("method") or "")
    return [name for name in (method.presets if method else ()) if name.startswith(incomplete)]


def complete_tokenizer(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return `base` and the names of the agents on the line that start with the typed text."""
    try:
        agents, _ = split_groups(name_agents(ctx.params.get("agent") or []))
    except InputError:  # the command will say it
        agents = {}
    return [name for name in ("base", *agents) if name.startswith(incomplete)]
