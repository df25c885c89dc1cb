"""Serve Prefect's API until this process is ended, as uvicorn's command does, and start sooner.

python -m flows.servers.prefect_process HOST PORT
"""

import gc
import sys

from rammerge.system.optional import without


def main(host: str, port: int) -> None:
    """Import the server and serve it. The garbage collector never looks at what the imports made, which stays."""
    gc.disable()
    import uvicorn

    with without("trio"):  # an event loop that nothing here uses
        from prefect.server.api.server import create_app

    gc.freeze()
    gc.enable()
    uvicorn.run(create_app, factory=True, host=host, port=port, log_level="warning")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
