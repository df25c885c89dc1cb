"""The command line: parse, call, print. A heavy import is made by the command that needs it."""

import gc
import sys
import traceback
from typing import Annotated

import typer

import rammerge
from flows.cli import pipeline
from rammerge.cli import commands
from rammerge.errors import InputError, RammergeError, no_space, out_of_space
from rammerge.system.allocator import keep_freed_blocks
from rammerge.system.home import home
from rammerge.system.interrupts import ended_by_signals, interrupted, say_interrupted
from rammerge.system.redaction import redact

_NAME = "rammerge"  # in messages and for the shell's completion, however the program was started
# What the parser says of a value, and the same in the words of people.
_PLAIN = {
    "Value error, ": "",
    "Input should be": "it should be",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
    "a valid integer, unable to parse string as an integer": "a whole number",
    "a valid number, unable to parse string as a number": "a number",
}

app = typer.Typer(
    name=_NAME,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Merge RL-trained agents into one generalist, prove that it is better, and promote it.",
    epilog="Exit codes: 0 done; 1 a gate refused or a step failed; 2 bad input, found before any work.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"rammerge {rammerge.__version__}")
        raise typer.Exit


@app.callback()
def _global(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks instead of one-sentence errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Merge RL-trained agents into one generalist, prove that it is better, and promote it."""


pipeline.add_commands(app)
commands.add_commands(app)


def main() -> None:
    """Run the command line and exit with its code; errors are one sentence on stderr unless `--debug` is given."""
    # Importing torch makes a million objects that stay. With the default thresholds, a short command would spend most
    # of its time on looking through them.
    gc.set_threshold(100_000, 50, 100)
    keep_freed_blocks()
    arguments = sys.argv[1:]
    with ended_by_signals():
        code = _run(arguments, debug="--debug" in arguments)
        if code and interrupted():
            code = say_interrupted()
    sys.exit(code)


def _run(arguments: list[str], *, debug: bool) -> int:
    """Run the command line and return the exit code."""
    try:
        # Accepted anywhere on the line: a user who meets an error repeats the command with --debug at its end.
        words = [word for word in arguments if word != "--debug"]
        code = app(words or ["--help"], prog_name=_NAME, standalone_mode=False)
        print(end="", flush=True)  # flush here, so that a failure to write is reported like any other
    except typer.Exit as exit_:
        return exit_.exit_code
    except typer.TyperException as error:
        return _report(InputError(_usage(error)), debug)
    except (KeyboardInterrupt, typer.Abort):
        return say_interrupted()
    except RammergeError as error:
        return _report(error, debug)
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except Exception as error:  # the last resort: no traceback without --debug
        return _report(RammergeError(_sentence(error)), debug)
    return code if isinstance(code, int) else 0


def _usage(error: typer.TyperException) -> str:
    """Return the message for a command line that cannot be parsed."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "rammerge"
    words = " ".join(error.format_message().split()).rstrip(".")
    for said, plain in _PLAIN.items():
        words = words.replace(said, plain)
    return f"{words}; see `{command} --help`"


def _sentence(error: Exception) -> str:
    """Return the message for an error that no code below expects."""
    words = " ".join(str(error).split())
    if out_of_space(error) or "database or disk is full" in words:  # SQLAlchemy reports SQLite's error in these words
        return no_space(getattr(error, "filename", None) or home())
    from flows.servers.api import explained  # what most commands do without

    if sentence := explained(error):
        return sentence
    return f"unexpected {type(error).__name__}: {words}; run again with --debug for details"


def _report(error: RammergeError, debug: bool) -> int:
    if debug:
        print(redact(traceback.format_exc()), file=sys.stderr, end="")
    if not interrupted():  # otherwise the error is what the interrupt led to
        print(f"error: {redact(str(error))}", file=sys.stderr)
    return error.exit_code
