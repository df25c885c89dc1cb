"""A look at models before a recipe over them is written: what they are, whether they merge, how far they overlap."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.checkpoints.family import Resize, check_mergeable
from rammerge.checkpoints.fetch import fetch
from rammerge.cli.terminal import say
from rammerge.errors import InputError, closest
from rammerge.overlap import Overlap

# Reading so much takes a moment. Beyond it, `rammerge inspect` is for the user to call.
_MEASURED_BYTES = 1 << 30


@dataclass(frozen=True)
class Survey:
    """What was found of a base and its agents.

    Attributes:
        kind: the architecture, as the base's config.json says it.
        parameters: elements of the base.
        stored: the dtypes of the base's weights, the most frequent first.
        resize: `common` where an agent's vocabulary has grown, so that only the common rows can be merged.
        warnings: what to know about the agents.
        overlap: which elements the agents changed; None where measuring would take long.
    """

    kind: str
    parameters: int
    stored: tuple[str, ...]
    resize: Resize
    warnings: tuple[str, ...]
    overlap: Overlap | None


def on_hub(source: str) -> bool:
    """Tell a hub id from a directory; a path that exists wins."""
    return not Path(source).expanduser().exists() and "/" in source and not source.startswith((".", "/", "~"))


def misspelt(source: str) -> str | None:
    """Return a sentence about a hub id that looks like a directory whose last part is wrong, else None."""
    path = Path(source)
    near = closest(path.name, [entry.name for entry in path.parent.glob("*/")]) if on_hub(source) else ""
    return f"{source} is no directory here{near}; it would be a model on the hub" if near else None


def survey(base: str, agents: Mapping[str, str]) -> Survey:
    """Open the models, which are directories, check that they can be merged, and measure them where that is quick.

    Raises:
        InputError: they cannot be opened or merged; the sentence says how to mend it.
    """
    opened, trained, resize, warnings = open_models(base, agents)
    overlap = None
    size = sum(tensor.nbytes for model in (opened, *trained.values()) for tensor in model.tensors.values())
    if size < _MEASURED_BYTES:
        from rammerge.api import extract

        say("measuring what each agent changed ...")
        overlap = extract(opened, trained, densities=False, resize=resize)
        warnings = (*warnings, *overlap.warnings())
    counts: dict[str, int] = {}
    for tensor in opened.tensors.values():
        counts[str(tensor.dtype)] = counts.get(str(tensor.dtype), 0) + tensor.numel
    return Survey(
        kind=str(opened.config.get("model_type", "an unnamed architecture")),
        parameters=sum(counts.values()),
        stored=tuple(sorted(counts, key=lambda dtype: -counts[dtype])),
        resize=resize,
        warnings=warnings,
        overlap=overlap,
    )


def open_models(
    base: str, agents: Mapping[str, str]
) -> tuple[Checkpoint, dict[str, Checkpoint], Resize, tuple[str, ...]]:
    """Return the models, how they can be merged (`common` only where nothing else will do), and what to know then."""
    opened = fetch(base, progress=say)
    trained = {name: fetch(source, base=opened, progress=say) for name, source in agents.items()}
    try:
        return opened, trained, "refuse", check_mergeable(opened, trained).warnings
    except InputError as error:
        try:
            return opened, trained, "common", check_mergeable(opened, trained, resize="common").warnings
        except InputError:
            raise error from None
