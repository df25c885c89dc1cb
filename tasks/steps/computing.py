"""How steps have the engine compute: with a recipe's settings, and seen by who watches the run."""

from collections.abc import Callable
from typing import Any

from rammerge.engine.options import MergeOptions
from rammerge.engine.progress import Progress
from rammerge.recipe import Compute, Output
from rammerge.system.sizes import parse_size
from tasks.runtime.progress import progress


def merge_options(output: Output, compute: Compute, device: str | None = None) -> MergeOptions:
    """Return the engine's options for a recipe's sections, on a `device` other than the recipe's if one is given."""
    return MergeOptions(
        dtype=output.dtype,
        rounding=output.rounding,
        seed=output.seed,
        shard_size=parse_size(output.shard_size),
        **machine(compute, device or compute.merge_on),
    )


def machine(compute: Compute, device: str) -> dict[str, Any]:
    """Return the settings that do not change a byte of the result."""
    limits = {"memory": compute.memory, "device_memory": compute.device_memory}
    return {"device": device, **{name: parse_size(size) for name, size in limits.items() if size}}


def report_progress() -> Callable[[Progress], None]:
    """Return what the engine calls, from threads of its own, to say how far it is."""
    report = progress()
    return lambda state: report(state.done / max(1, state.total), state.stage)
