"""Packing the checkpoints of one run, each against the base or against the one before."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.checkpoints.family import Source
from rammerge.checkpoints.patched.container import read_patch
from rammerge.checkpoints.patched.opening import MOST_LINKS, chain_of
from rammerge.checkpoints.patched.place import is_patch
from rammerge.engine.progress import OnProgress
from rammerge.errors import InputError
from rammerge.patches.packing import PackReport, pack
from rammerge.patches.planning import open_base, open_source, plan_patch
from rammerge.system.paths import expanded


def pack_series(
    base: Source,
    checkpoints: Mapping[str, Source],
    out: str | Path,
    *,
    chain: int = 1,
    threads: int | None = None,
    force: bool = False,
    progress: OnProgress | None = None,
) -> dict[str, PackReport]:
    """Pack the checkpoints of one run into `out`/NAME each. Those that are there already are left as they are.

    Args:
        base: what the run started from: a directory, a hub id `org/name[@revision]`, or a checkpoint.
        checkpoints: by name, in the order of the run.
        out: the directory for the patches.
        chain: how many patches in a row may depend on one another. The first of them is relative to the base, each
            other one to the checkpoint before it: smaller, but reading it reads all before it.
        threads: worker threads; default: one for each processor.
        force: replace patches of other checkpoints.
        progress: called as the work advances.

    Returns:
        What was packed, by name.

    Raises:
        InputError: a model cannot be read, `chain` is too long, or a patch of a different checkpoint is there.
        RammergeError: the disk is full, or an input changed meanwhile.
    """
    if not 1 <= chain <= MOST_LINKS:
        raise InputError(f"a chain has 1 to {MOST_LINKS} patches, not {chain}; choose a different --chain")
    out = expanded(out).absolute()
    opened, names = open_source(base), list(checkpoints)
    reports: dict[str, PackReport] = {}
    for place, (name, agent) in enumerate(checkpoints.items()):
        patch, after = out / name, out / names[place - 1] if place % chain else None
        if force or not _is_packed(opened, agent, patch, after):
            reports[name] = pack(opened, agent, patch, after=after, threads=threads, force=force, progress=progress)
    return reports


def last_link(patch: Path, chain: int) -> Path | None:
    """Return a patch if one more may follow it in a chain of `chain` patches.

    Raises:
        InputError: it cannot be read, or one that it needs is missing.
    """
    return patch if sum(1 for _ in chain_of(patch)) < chain else None


def _is_packed(base: Checkpoint, agent: Source, patch: Path, after: Path | None) -> bool:
    if not is_patch(patch):
        return False
    relative_to, parent = open_base(base, after, patch)
    return read_patch(patch).contents == plan_patch(relative_to, open_source(agent), parent).contents
