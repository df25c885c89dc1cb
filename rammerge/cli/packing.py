"""Commands that pack agents as patches and unpack them."""

from pathlib import Path
from typing import Annotated

import typer

from rammerge.cli import options
from rammerge.cli.terminal import progress_display


def pack(
    base: options.Base,
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="The agent: a directory, or a hub id.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The directory of the patch to make.")],
    force: options.Force = False,
    threads: options.Threads = None,
) -> None:
    """Store an agent as its difference from the base: 5 to 50 times smaller, and exact."""
    from rammerge.patches.packing import pack as pack_agent

    with progress_display() as progress:
        report = pack_agent(base, agent, out, threads=threads, force=force, progress=progress)
    print(report)


def unpack(
    base: options.Base,
    patch: Annotated[Path, typer.Argument(metavar="DIR", help="A directory that `rammerge pack` wrote.")],
    out: options.Out,
    force: options.Force = False,
    threads: options.Threads = None,
) -> None:
    """Write the files of an agent that was packed, bit for bit."""
    from rammerge.patches.unpacking import unpack as unpack_agent

    with progress_display() as progress:
        unpack_agent(base, patch, out, threads=threads, force=force, progress=progress)
    print(f"{out} is as it was packed")


def verify_patch(directory: Path, base: str | None) -> None:
    """Check the files of a patch, and if its base is given, those that it unpacks to."""
    from rammerge.checkpoints.fetch import fetch
    from rammerge.patches.verifying import verify_patch as verify

    files = verify(directory, None if base is None else fetch(base))
    total = f"{len(files)} files, {sum(file.size for file in files.values()):,} bytes"
    if base is None:
        print(f"{directory} is as it was packed, and unpacks to {total} (give --base to check these too)")
    else:
        print(f"{directory} unpacks to the agent that was packed: {total}")
