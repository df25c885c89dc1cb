"""What the base does on a method's prompts, recorded in the directory in which a merge is prepared."""

from pathlib import Path

from rammerge.activations.activations import Activations
from rammerge.activations.prompts import Prompts
from rammerge.activations.recording import record
from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.engine.options import MergeOptions
from rammerge.engine.progress import OnProgress, Progress


def recorded(
    base: Checkpoint,
    prompts: Prompts,
    directory: Path,
    options: MergeOptions,
    progress: OnProgress | None,
) -> Activations:
    """Return the activations of the base on prompts, which an earlier run may have left in `directory`."""
    if (found := Activations.open(directory)) is not None:
        return found

    def report(done: int, total: int) -> None:
        if progress:
            progress(Progress("run the base on prompts", done, total))

    return record(base, prompts, directory, device=options.device, threads=options.threads, progress=report)
