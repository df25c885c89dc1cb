"""The process of the command line: `rammerge`, or `python -m rammerge`."""

import atexit
import contextlib
import logging
import os
import sys

from flows.cli.program import main


def run() -> None:
    """Run the command line and end the process."""
    code = 1

    def end() -> None:
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # a closed pipe, of which `main` has spoken
                stream.flush()
        os._exit(code)

    # Taking torch's modules apart takes the interpreter a tenth of a second and serves nobody. What is registered first
    # is called last: by then all threads have been waited for, and everybody else's handlers have run.
    atexit.register(end)
    try:
        main()
    except SystemExit as exit_:
        code = int(exit_.code or 0)


if __name__ == "__main__":
    run()
