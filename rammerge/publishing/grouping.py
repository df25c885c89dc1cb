"""Which models are made in one read of the inputs, and what that takes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from rammerge.checkpoints.family import Family
from rammerge.engine.forecast import Forecast, forecast, forecast_together, most_outputs
from rammerge.engine.options import MergeOptions
from rammerge.errors import InputError
from rammerge.rules import Rule

K = TypeVar("K")


@dataclass(frozen=True)
class Group(Generic[K]):
    """Models that are made together.

    Attributes:
        rules: what makes each.
        forecast: what they take.
    """

    rules: Mapping[K, Rule]
    forecast: Forecast


def grouped(family: Family, rules: Mapping[K, Rule], options: MergeOptions) -> list[Group[K]]:
    """Divide models into groups that are made together, and forecast them. Code begins to be compiled here.

    A rule for whole matrices is alone. The others are together, unless memory or open files do not suffice for all.

    Raises:
        InputError: `options.memory` does not suffice for one alone, or the device is not there.
    """
    together = {name: rule for name, rule in rules.items() if not rule.matrices}
    alone = {name: rule for name, rule in rules.items() if rule.matrices}
    groups = list(_fitting(family, together, options)) if together else []
    return groups + [Group({name: rule}, forecast(family, rule, options)) for name, rule in alone.items()]


def note_of(groups: list[Group[K]]) -> list[str]:
    """Return the sentence that says that not all models could be made together, if that is so."""
    together = [group for group in groups if not any(rule.matrices for rule in group.rules.values())]
    if len(together) < 2:
        return []
    models = sum(len(group.rules) for group in together)
    return [
        f"memory or open files do not suffice for {models} models at once: they were made in {len(together)} groups, "
        "and each group read the inputs"
    ]


def _fitting(family: Family, rules: Mapping[K, Rule], options: MergeOptions) -> Iterator[Group[K]]:
    expected = _forecast(family, rules, options)
    if expected is not None:
        yield Group(rules, expected)
        return
    items = list(rules.items())
    yield from _fitting(family, dict(items[: len(items) // 2]), options)
    yield from _fitting(family, dict(items[len(items) // 2 :]), options)


def _forecast(family: Family, rules: Mapping[K, Rule], options: MergeOptions) -> Forecast | None:
    """Return the forecast, or None if the models have to be divided further."""
    if len(rules) > most_outputs(family, options):
        return None
    try:
        return forecast_together(family, list(rules.values()), options)
    except InputError:
        if len(rules) == 1:
            raise
        return None
