"""The program's door: `rammerge`, or `python -m rammerge`.

This is the one file of the library that looks up to `flows`, where the program is assembled.
"""

import atexit
import contextlib
import logging
import os
import sys
from pathlib import Path

from rammerge.system.neighbours import ROOT, hidden_neighbour


def run() -> None:
    """Run the command line and end the process."""
    if problem := hidden_neighbour():
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)
    from flows.cli.program import main

    code = 1

    def end() -> None:
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # a closed pipe, which `main` has reported
                stream.flush()
        os._exit(code)

    # Taking torch's modules apart takes the interpreter a tenth of a second and serves nobody. Handlers run in reverse
    # order of registration: by the time of this one, all threads have been joined and all other handlers have run.
    atexit.register(end)
    try:
        main()
    except SystemExit as exit_:
        code = int(exit_.code or 0)


def _forget_working_directory() -> None:
    """Take the working directory, which `python -m` puts first, off the import path, as the console script has it.

    The names of the user's own directories then never matter. A checkout that is run without an installation stays.
    """
    first = sys.path[0]
    if not sys.flags.safe_path and not (first and Path(first).resolve() == ROOT):
        del sys.path[0]


if __name__ == "__main__":
    _forget_working_directory()
    run()
