"""The space of a search: for each method what its parameters may be, held against the method's own types."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from pydantic.fields import FieldInfo

from rammerge.activations.prompts import Prompts
from rammerge.errors import InputError, closest
from rammerge.recipe import Domain, WrittenStep, unknown_steps, with_values
from rammerge.rules import STEPS, Method, ResolvedMethod, find_method, resolve

Values = dict[str, Any]
Place = tuple[str, ...]


@dataclass(frozen=True)
class Fixed:
    """What all candidates have in common: see `rammerge.rules.resolve`. Only methods that need prompts get them."""

    weights: Mapping[str, float] = field(default_factory=dict)
    tensors: Sequence[Mapping[str, Any]] = ()
    then: Sequence[WrittenStep] = ()
    prompts: Prompts | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """What was given, as JSON."""
        prompts = self.prompts.sha256 if self.prompts else None
        found = {"weights": self.weights, "tensors": self.tensors, "then": self.then, "prompts": prompts}
        return {key: value for key, value in found.items() if value}


@dataclass(frozen=True)
class Space:
    """Methods, and what their parameters may be. A parameter of a step after the method is written STEP.PARAMETER.

    Attributes:
        methods: method -> parameter -> what it may be, in the recipe's order.
        fixed: what all candidates have in common.
        trusted: modules whose code may run, for a method named `module:name`.
        directory: where such a module may be.
    """

    methods: Mapping[str, Mapping[str, Domain]]
    fixed: Fixed = Fixed()
    trusted: tuple[str, ...] = ()
    directory: Path | None = field(default=None, compare=False)

    def problem(self) -> tuple[Place, str] | None:
        """Return the place in `methods` of the first part that cannot work, and a sentence about it."""
        for method, domains in self.methods.items():
            try:
                spec = self.spec(method)
            except InputError as error:
                return (method,), str(error)
            try:
                settled = self.settle(method, {})
                if self.fixed.prompts is None:
                    settled.check_prompts(())
            except InputError as error:
                return (method,), str(error)
            for name, domain in domains.items():
                try:
                    self._check(spec, name, domain)
                except InputError as error:
                    return (method, name), str(error)
        return None

    @property
    def needs_prompts(self) -> bool:
        """Whether a method needs data."""
        return any(self.spec(method).needs_prompts for method in self.methods)

    def spec(self, method: str) -> Method:
        """Return the method of that name; InputError if there is none."""
        return find_method(method, trusted=self.trusted, directory=self.directory)

    def settle(self, method: str, values: Mapping[str, Any]) -> ResolvedMethod:
        """Return a method with these parameters; InputError if they make no sense together."""
        return self._resolve(self.spec(method), None, values)

    def _resolve(self, spec: Method, preset: str | None, values: Mapping[str, Any]) -> ResolvedMethod:
        own, steps = with_values(self.fixed.then, values)
        return resolve(
            spec,
            preset,
            own,
            weights=self.fixed.weights,
            tensors=self.fixed.tensors,
            then=steps,
            prompts=self.fixed.prompts if spec.needs_prompts else None,
        )

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
                settled = _all_values(self._resolve(spec, preset, fixed))
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
        return _all_values(self.settle(method, values)) == settled

    def _check(self, spec: Method, name: str, domain: Domain) -> None:
        if unknown_steps(self.fixed.then, [name]):
            raise InputError(f"'{name}' is of a step that `then` does not have; add the step")
        for value in (*_ends(domain), *domain.values):
            self._resolve(spec, None, {name: value})
        _check_kind(spec, name, domain)
        _check_condition(domain, self.methods[spec.name])


def _all_values(settled: ResolvedMethod) -> Values:
    """Return the parameters of a method and of the steps after it, under the names that a space has for them."""
    steps = {
        f"{chosen.step.name}.{name}": value
        for chosen in settled.then
        for name, value in chosen.params.model_dump().items()
    }
    return {**settled.params, **steps}


def _ends(domain: Domain) -> list[int | float]:
    return [_exact(end) for end in (domain.low, domain.high) if end is not None]


def _check_kind(spec: Method, name: str, domain: Domain) -> None:
    if _ends(domain) and _kinds(spec, name).isdisjoint({int, float}):
        raise InputError(
            f"parameter '{name}' of method '{spec.name}' is no number, so it has no range; list its values"
        )


def _check_condition(domain: Domain, domains: Mapping[str, Domain]) -> None:
    for other, wanted in domain.when.items():
        if other not in domains or domains[other].when or not any(wanted == value for value in domains[other].values):
            raise InputError(
                f"`when` wants '{other}' to be {wanted!r}{closest(other, domains)}; give '{other}' values with "
                f"{wanted!r} among them, and no `when` of its own"
            )


def _kinds(spec: Method, name: str) -> set[Any]:
    """Return the types of a parameter's values, such as float and None."""
    annotation = _field(spec, name).annotation
    return set(get_args(annotation)) or {annotation}


def _field(spec: Method, name: str) -> FieldInfo:
    step, _, parameter = name.rpartition(".")
    return (STEPS[step].params if step else spec.params).model_fields[parameter]


def _contains(domain: Domain, value: Any) -> bool:
    if domain.low is None or domain.high is None:
        return value in domain.values
    return isinstance(value, int | float) and domain.low <= value <= domain.high


def _exact(number: float) -> int | float:
    return int(number) if number.is_integer() else number
