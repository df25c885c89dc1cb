"""The space of a search: for each method what its parameters may be, held against the method's own types."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from rammerge.errors import InputError, closest
from rammerge.recipe import Domain
from rammerge.rules import Method, ResolvedMethod, find_method, resolve

Values = dict[str, Any]
Place = tuple[str, ...]


@dataclass(frozen=True)
class Space:
    """Methods, and what their parameters may be.

    Attributes:
        methods: method -> parameter -> what it may be, in the recipe's order.
        trusted: modules whose code may run, for a method named `module:name`.
        directory: where such a module may be.
    """

    methods: Mapping[str, Mapping[str, Domain]]
    trusted: tuple[str, ...] = ()
    directory: Path | None = field(default=None, compare=False)

    def problem(self) -> tuple[Place, str] | None:
        """Return the place in `methods` of the first part that cannot work, and a sentence about it."""
        for method, domains in self.methods.items():
            try:
                spec = self.spec(method)
            except InputError as error:
                return (method,), str(error)
            if spec.needs_prompts:
                return (method,), f"method '{method}' needs prompts, which a search does not give; make it a variant"
            for name, domain in domains.items():
                try:
                    _check(spec, name, domain, domains)
                except InputError as error:
                    return (method, name), str(error)
        return None

    def spec(self, method: str) -> Method:
        """Return the method of that name; InputError if there is none."""
        return find_method(method, trusted=self.trusted, directory=self.directory)

    def settle(self, method: str, values: Mapping[str, Any]) -> ResolvedMethod:
        """Return a method with these parameters; InputError if they make no sense together."""
        return resolve(self.spec(method), None, values)

    def is_whole(self, method: str, name: str) -> bool:
        """Whether a parameter with a range takes whole numbers only."""
        return _kinds(self.spec(method), name).isdisjoint({float})

    def applies(self, method: str, name: str, values: Mapping[str, Any]) -> bool:
        """Whether a parameter is varied where others of the method have these values."""
        return all(values.get(other) == wanted for other, wanted in self.methods[method][name].when.items())

    def ordered(self, method: str) -> list[tuple[str, Domain]]:
        """Return the parameters, those that depend on others last."""
        return sorted(self.methods[method].items(), key=lambda item: bool(item[1].when))

    def starts(self) -> Iterator[tuple[str, Values]]:
        """Yield what is tried first: each method's defaults, and then its presets, as far as they are in the space."""
        for method in self.methods:
            spec = self.spec(method)
            fixed = {name: domain.values[0] for name, domain in self.methods[method].items() if domain.fixed}
            seen: list[Values] = []
            for preset in (None, *spec.presets):
                settled = dict(resolve(spec, preset, fixed).params)
                values = {
                    name: settled[name] for name, _ in self.ordered(method) if self.applies(method, name, settled)
                }
                if values not in seen and self._is_in(method, values, settled):
                    seen.append(values)
                    yield method, values

    def _is_in(self, method: str, values: Values, settled: Mapping[str, Any]) -> bool:
        """Whether `values` are in the space and mean the same as `settled`."""
        if not all(_contains(self.methods[method][name], value) for name, value in values.items()):
            return False
        return dict(self.settle(method, values).params) == settled


def _check(spec: Method, name: str, domain: Domain, domains: Mapping[str, Domain]) -> None:
    ends = [_exact(end) for end in (domain.low, domain.high) if end is not None]
    for value in (*ends, *domain.values):
        resolve(spec, None, {name: value})
    if ends and _kinds(spec, name).isdisjoint({int, float}):
        raise InputError(
            f"parameter '{name}' of method '{spec.name}' is no number, so it has no range; list its values"
        )
    for other, wanted in domain.when.items():
        if other not in domains or domains[other].when or not any(wanted == value for value in domains[other].values):
            raise InputError(
                f"`when` wants '{other}' to be {wanted!r}{closest(other, domains)}; give '{other}' values with "
                f"{wanted!r} among them, and no `when` of its own"
            )


def _kinds(spec: Method, name: str) -> set[Any]:
    """Return the types of a parameter's values, such as float and None."""
    annotation = spec.params.model_fields[name].annotation
    return set(get_args(annotation)) or {annotation}


def _contains(domain: Domain, value: Any) -> bool:
    if domain.low is None or domain.high is None:
        return value in domain.values
    return isinstance(value, int | float) and domain.low <= value <= domain.high


def _exact(number: float) -> int | float:
    return int(number) if number.is_integer() else number
