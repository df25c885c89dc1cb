"""What `rammerge init` asks for on a terminal, where options are missing."""

import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

import typer

from rammerge.cli.parsing import name_agents
from rammerge.cli.terminal import say
from rammerge.errors import InputError


def on_terminal() -> bool:
    """Tell whether there is somebody to ask."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def ask_for_base() -> str:
    """Ask for the base until it can be opened, or is on the hub."""
    from flows.cli.survey import misspelt, on_hub
    from rammerge.checkpoints.fetch import fetch

    def accept(answer: str) -> None:
        if doubt := misspelt(answer):
            raise InputError(doubt)
        if not on_hub(answer):
            fetch(answer, progress=say)

    return _ask("Base model (a directory, or ORG/NAME on the hub)", accept)


def ask_for_agents(base: str) -> list[str]:
    """Ask for agents until the answer is empty. At least one is required."""
    from flows.cli.survey import misspelt, on_hub, open_family

    def accept(answer: str) -> None:
        if agents and not answer:
            return
        named = name_agents([*agents, answer])
        if doubt := misspelt(list(named.values())[-1]):
            raise InputError(doubt)
        if not any(map(on_hub, (base, *named.values()))):
            open_family(base, named)

    agents: list[str] = []
    while answer := _ask(
        f"Agent {len(agents) + 1} ([NAME=]directory, or ORG/NAME{'; empty when done' if agents else ''})", accept
    ):
        agents.append(answer)
    return agents


def ask_for_suites() -> list[str]:
    """Return the suites, or none if the user will replace the demo's later."""
    from evaluation.suites import available_suites

    def accept(answer: str) -> None:
        check_suites([] if answer == later else shlex.split(answer))

    later = "later"
    say(f"What to evaluate: directories with a suite.yaml, or bundled suites ({', '.join(available_suites())}).")
    answer = _ask("Suites, separated by spaces", accept, default=later)
    return [] if answer == later else shlex.split(answer)


def _ask(question: str, accept: Callable[[str], None], default: str = "") -> str:
    """Ask on stderr until `accept` does not raise an InputError for the answer. Tab completes file names."""
    with suppress(ImportError):
        import readline

        readline.set_completer_delims(" \t\n=")
        readline.parse_and_bind("tab: complete")
    while True:
        try:
            answer = str(typer.prompt(question, default=default, show_default=bool(default), err=True)).strip()
        except typer.Abort:
            say("")  # ends the question's line
            raise
        try:
            accept(answer)
        except (InputError, ValueError) as error:  # ValueError: an unclosed quotation mark
            say(f"  {error}")
            continue
        return answer


def check_suites(suites: Sequence[str]) -> None:
    """Refuse suites that do not open."""
    if suites:
        from evaluation.suites import load_suite

        for suite in suites:
            load_suite(suite)
