"""The merge methods, and how a name, a preset and overrides become a settled set of parameters."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from rammerge.activations.prompts import Prompts
from rammerge.engine.blocks import Block, Update
from rammerge.engine.passes.statistics import Statistics
from rammerge.errors import InputError, closest
from rammerge.rules.elementwise import arithmetic, consensus, della, ram, ram_ties, sce, sparsified, trimmed
from rammerge.rules.rule import ResolvedMethod, Rule
from rammerge.rules.span import awd, means
from rammerge.rules.spec import Method, Params
from rammerge.rules.spectral import essential, isotropic, resmerge, singular_vectors, wudi
from rammerge.rules.spectral.steps import ChosenStep
from rammerge.rules.tensors import TensorRule, read_rules
from rammerge.rules.then import STEPS, read_steps
from rammerge.system.plugins import entry_points, is_reference, load_object
from rammerge.system.schema import first_problem, reason

_ELEMENTWISE = (ram, ram_ties, arithmetic, sparsified, trimmed, della, consensus, sce)
_FAMILIES = (*_ELEMENTWISE, means, awd, isotropic, singular_vectors, wudi, resmerge, essential)

METHODS: Mapping[str, Method] = MappingProxyType(
    {method.name: method for family in _FAMILIES for method in family.METHODS}
)

# The group of entry points by which installed packages offer methods.
GROUP = "rammerge.methods"

__all__ = [
    "GROUP",
    "METHODS",
    "STEPS",
    "Block",
    "Method",
    "Params",
    "ResolvedMethod",
    "Rule",
    "Statistics",
    "TensorRule",
    "Update",
    "all_methods",
    "find_method",
    "resolve",
    "restore",
]


def resolve(
    method: str | Method,
    preset: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    weights: Mapping[str, float] | None = None,
    tensors: Sequence[Mapping[str, Any]] = (),
    then: Sequence[str | Mapping[str, Any]] = (),
    prompts: Prompts | None = None,
    trusted: Collection[str] = (),
    directory: Path | None = None,
    also: Iterable[str] = (),
) -> ResolvedMethod:
    """Settle a method: its defaults, then the preset's parameters, then `overrides`.

    Args:
        method: a name, or a method of the user's own.
        preset: a named set of the method's parameters.
        overrides: parameters by name.
        weights: agent -> factor of its task vector.
        tensors: what is done with some tensors instead: see `TensorRule`.
        then: steps after the method: names, or names with their parameters, such as `{"svc": {"alpha": 0.1}}`.
        prompts: what the base reads, for a method that needs data.
        trusted: modules whose code may run, for a method named `module:name`.
        directory: where such a module may be besides the import path.
        also: names that a misspelt parameter may have meant, besides the method's own parameters.

    Raises:
        InputError: an unknown method, preset, parameter or step (the nearest is named), a value out of bounds, or
            weights, steps or prompts for a method that takes none.
    """
    spec = method if isinstance(method, Method) else find_method(method, trusted=trusted, directory=directory)
    chosen = {**_preset(spec, preset), **(overrides or {})}
    params, rules = _validated(spec, chosen, also), read_rules(tensors)
    for rule in rules:
        _validated(spec, {**params.model_dump(), **rule.params}, also, f"tensors '{rule.match}': ")
    if prompts is not None and not spec.needs_prompts:
        raise InputError(f"method '{spec.name}' needs no data; leave the prompts out")
    factors, plain = _checked(spec, weights or {})
    return ResolvedMethod(spec, preset, params, factors, rules, _followed(spec, then), prompts, plain)


def _preset(spec: Method, name: str | None) -> Mapping[str, Any]:
    """Return the parameters of a preset, or no parameters if none is named."""
    if name is None:
        return {}
    if name not in spec.presets:
        known, hint = ", ".join(spec.presets) or "none", closest(name, spec.presets)
        raise InputError(f"method '{spec.name}' has no preset '{name}'{hint}; its presets: {known}")
    return spec.presets[name]


def _validated(spec: Method, chosen: Mapping[str, Any], also: Iterable[str], where: str = "") -> Params:
    try:
        return spec.params.model_validate(chosen)
    except ValidationError as error:
        raise InputError(where + _explain(spec, error, also)) from error


def _checked(spec: Method, weights: Mapping[str, float]) -> tuple[dict[str, float], frozenset[str]]:
    """Return the weights that are not 1, and the agents of the others."""
    for name, weight in weights.items():
        if not (isinstance(weight, int | float) and math.isfinite(weight) and weight > 0):
            raise InputError(
                f"the weight of agent '{name}' is {weight!r}; give a number above 0, or leave the agent out"
            )
    if weights and spec.refuses_weights:
        raise InputError(f"method '{spec.name}' takes no weights: {spec.refuses_weights}")
    factors = {name: float(weight) for name, weight in weights.items() if weight != 1}
    return factors, frozenset(weights.keys() - factors.keys())


def _followed(spec: Method, then: Sequence[str | Mapping[str, Any]]) -> tuple[ChosenStep, ...]:
    if then and spec.refuses_steps:
        raise InputError(f"after method '{spec.name}' no step may follow: {spec.refuses_steps}")
    return read_steps(then)


def find_method(name: str, *, trusted: Collection[str] = (), directory: Path | None = None) -> Method:
    """Return the method of that name: one of rammerge's, of an installed package, or of a trusted module.

    Args:
        name: a name from `rammerge methods`, or `module:name`.
        trusted: modules whose code may run.
        directory: where a module may be besides the import path: the recipe's directory.

    Raises:
        InputError: there is no such method, and the message names the nearest; or its module is not trusted, or it
            cannot be imported.
    """
    if name in METHODS:
        return METHODS[name]
    if is_reference(name):
        return _own(load_object(name, what="method", trusted=trusted, directory=directory), name)
    offered = entry_points(GROUP, what="method")
    if name in offered:
        return _own(offered[name](), name)
    known = [*METHODS, *offered]
    if name in STEPS:
        raise InputError(f"'{name}' is a step after a method: use task_arithmetic, or another method, and then {name}")
    raise InputError(f"unknown method '{name}'{closest(name, known)}; the methods are {', '.join(known)}")


def all_methods() -> dict[str, Method]:
    """Return rammerge's methods and those of installed packages, by name.

    Raises:
        InputError: a package's method cannot be loaded.
    """
    offered = entry_points(GROUP, what="method")
    return {**METHODS, **{name: _own(load(), name) for name, load in offered.items() if name not in METHODS}}


def _own(found: Any, name: str) -> Method:
    """Return a user's method under the name by which it is found again."""
    if not isinstance(found, Method):
        raise InputError(f"method '{name}' is of type {type(found).__name__}; make it a rammerge.Method")
    return replace(found, name=name)


def restore(
    method: str,
    preset: str | None,
    params: Mapping[str, Any],
    *,
    weights: Mapping[str, float] | None = None,
    tensors: Sequence[Mapping[str, Any]] = (),
    then: Sequence[str | Mapping[str, Any]] = (),
    prompts: Prompts | None = None,
    trusted: Collection[str] = (),
    directory: Path | None = None,
) -> ResolvedMethod:
    """Return what `resolve` gave, from what its `to_json` says, and the prompts.

    Raises:
        InputError: the method does not exist, or it has different parameters.
    """
    found = find_method(method, trusted=trusted, directory=directory)
    settled = resolve(found, None, params, weights=weights, tensors=tensors, then=then, prompts=prompts)
    return replace(settled, preset=preset)


def _explain(spec: Method, error: ValidationError, also: Iterable[str]) -> str:
    problem = first_problem(error)
    name = str(problem["loc"][0]) if problem["loc"] else ""
    fields = spec.params.model_fields
    if problem["type"] == "extra_forbidden":
        known, hint = ", ".join(fields) or "none", closest(name, [*fields, *also])
        return f"method '{spec.name}' has no parameter '{name}'{hint}; its parameters: {known}"
    which = f"parameter '{name}' of " if name else ""
    return f"{which}method '{spec.name}': {reason(problem)}"
