"""What the shell offers for a word of the library's commands. The shell itself completes files and directories."""

import typer

from rammerge.cli.parsing import name_agents
from rammerge.errors import InputError


def complete_method(incomplete: str) -> list[str]:
    """Return the methods that begin with what is typed."""
    from rammerge.rules import METHODS

    return [name for name in METHODS if name.startswith(incomplete)]


def complete_preset(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the presets of the method on the line that begin with what is typed."""
    from rammerge.rules import METHODS

    method = METHODS.get(ctx.params.get("method") or "")
    return [name for name in (method.presets if method else ()) if name.startswith(incomplete)]


def complete_tokenizer(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return `base` and the names of the agents on the line, as far as they begin with what is typed."""
    try:
        agents = name_agents(ctx.params.get("agent") or [])
    except InputError:  # the command will say it
        agents = {}
    return [name for name in ("base", *agents) if name.startswith(incomplete)]
