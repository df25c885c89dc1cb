"""Commands that pack agents as patches and unpack them."""

from pathlib import Path
from typing import Annotated

import typer

from rammerge.cli import options
from rammerge.cli.parsing import name_agents
from rammerge.cli.terminal import progress_display
from rammerge.errors import InputError

_Agents = Annotated[
    list[str],
    typer.Argument(
        metavar="[NAME=]AGENT",
        help="The agent: a directory, or a hub id. Or several checkpoints of one run, oldest first.",
    ),
]
_PatchOut = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="The directory of the patch to make; of several, DIR/NAME.")
]
_After = Annotated[
    Path | None,
    typer.Option(metavar="PATCH", help="Store the difference from the agent of this patch, which is beside DIR."),
]
_Chain = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Store the difference of each checkpoint from the one before, in chains of N patches. The first patch of "
        "a chain is relative to the base.",
    ),
]


def pack(
    base: options.Base,
    agents: _Agents,
    out: _PatchOut,
    after: _After = None,
    chain: _Chain = None,
    force: options.Force = False,
    threads: options.Threads = None,
) -> None:
    """Store an agent as its difference from the base: 5 to 50 times smaller, and exact."""
    from rammerge.patches.packing import pack as pack_agent
    from rammerge.patches.series import pack_series

    several = len(agents) > 1 or chain is not None
    if several and after is not None:
        raise InputError("--after is for one agent; pack several checkpoints of one run with --chain")
    named = name_agents(agents)
    with progress_display() as progress:
        if several:
            length = 1 if chain is None else chain
            made = pack_series(base, named, out, chain=length, threads=threads, force=force, progress=progress)
            reports = [*made.values()]
        else:
            (agent,) = named.values()
            reports = [pack_agent(base, agent, out, after=after, threads=threads, force=force, progress=progress)]
    print("\n".join(map(str, reports)) or f"{out} has all of them already")


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
