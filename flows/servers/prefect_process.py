"""Serve Prefect's API until this process is ended, as uvicorn's command does, and start sooner.

python -m flows.servers.prefect_process HOST PORT
"""

import gc
import sys

from rammerge.system.optional import without

# What a run asks.
_OF_RUNS = ("/flows", "/flow_runs", "/task_runs", "/logs", "/artifacts", "/events", "/admin", "/csrf-token")


def main(host: str, port: int) -> None:
    """Import the server and serve it. The garbage collector never looks at what the imports made, which stays."""
    gc.disable()
    import uvicorn

    with without("trio"):  # an event loop that nothing here uses
        from prefect.server.api import server

    # FastAPI makes the routes of a router when the first request comes to it or to one after it.
    routers = sorted(server.API_ROUTERS, key=lambda router: router.prefix not in _OF_RUNS)
    vars(server).update(API_ROUTERS=tuple(routers))  # declared as thirty routers in this order
    gc.freeze()
    gc.enable()
    uvicorn.run(server.create_app, factory=True, host=host, port=port, log_level="warning")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
