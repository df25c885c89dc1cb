"""Examining models before a recipe is written: what they are, whether they can be merged, and how they overlap."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rammerge.checkpoints.family import Family
from rammerge.checkpoints.fetch import fetch
from rammerge.checkpoints.mergeable import Resize
from rammerge.cli.terminal import say
from rammerge.errors import InputError, closest
from rammerge.overlap import Overlap
from rammerge.system.paths import exists, expanded

# Models up to this size are measured at once. For larger ones the user can call `rammerge inspect`.
_MEASURED_BYTES = 1 << 30


@dataclass(frozen=True)
class Survey:
    """The findings about a base and its agents.

    Attributes:
        kind: the architecture in the base's config.json.
        parameters: elements of the base.
        stored: the dtypes of the base's weights, the most frequent first.
        resize: `common` where an agent's vocabulary has grown, so that only the common rows can be merged.
        warnings: sentences about the agents.
        overlap: which elements the agents changed; None where measuring would take long.
    """

    kind: str
    parameters: int
    stored: tuple[str, ...]
    resize: Resize
    warnings: tuple[str, ...]
    overlap: Overlap | None


def on_hub(source: str) -> bool:
    """Return whether `source` is a hub id. A path that exists takes precedence."""
    return not exists(expanded(source)) and "/" in source and not source.startswith((".", "/", "~"))


def misspelt(source: str) -> str | None:
    """Return a sentence about a hub id that looks like a directory whose last part is wrong, else None."""
    path = Path(source)
    near = closest(path.name, [entry.name for entry in path.parent.glob("*/")]) if on_hub(source) else ""
    return f"{source} is not a directory here{near}; it would be a model on the hub" if near else None


def survey(base: str, agents: Mapping[str, str]) -> Survey:
    """Open models in directories, check that they can be merged, and measure their overlap if they are small.

    Raises:
        InputError: they cannot be opened or merged; the message says how to fix it.
    """
    family = open_family(base, agents)
    overlap, warnings = None, family.warnings
    size = sum(tensor.nbytes for model in family.sources.values() for tensor in model.tensors.values())
    if size < _MEASURED_BYTES:
        from rammerge.engine.passes.measuring import measure_overlap

        say("measuring what each agent changed ...")
        overlap = measure_overlap(family, densities=False)
        warnings = (*warnings, *overlap.warnings())
    counts: dict[str, int] = {}
    stored = family.sources["base"]
    for tensor in stored.tensors.values():
        counts[str(tensor.dtype)] = counts.get(str(tensor.dtype), 0) + tensor.numel
    return Survey(
        kind=str(stored.config.get("model_type", "an unnamed architecture")),
        parameters=sum(counts.values()),
        stored=tuple(sorted(counts, key=lambda dtype: -counts[dtype])),
        resize=family.resize,
        warnings=warnings,
        overlap=overlap,
    )


def open_family(base: str, agents: Mapping[str, str]) -> Family:
    """Return the models, opened and checked; on the common rows only where nothing else will do."""
    opened = fetch(base, progress=say)
    trained = {name: fetch(source, base=opened, progress=say) for name, source in agents.items()}
    try:
        return Family.open(opened, trained)
    except InputError as error:
        try:
            return Family.open(opened, trained, resize="common")
        except InputError:
            raise error from None
