"""The command that prints what runs came to for Prometheus."""

from pathlib import Path
from typing import Annotated

import typer


def metrics(
    out: Annotated[
        Path | None, typer.Option(help="Write to this file instead, for node_exporter.", metavar="FILE.prom")
    ] = None,
) -> None:
    """Print the last run of each recipe in Prometheus's text format: seconds, cache hits, gates, champion's scores."""
    from flows.run.metrics import exposition
    from rammerge.system.atomic import write_text

    if out is None:
        print(exposition(), end="")
    else:
        write_text(out, exposition())
