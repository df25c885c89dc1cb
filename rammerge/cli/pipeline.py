"""Commands of the pipeline: run, check, evaluate, promote, rollback, releases, ui, demo."""

import typer


def add_commands(app: typer.Typer) -> None:
    """Add this module's commands to the program."""
