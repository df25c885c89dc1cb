"""The merge methods, and how a name, a preset and overrides become a settled set of parameters."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from rammerge.engine.blocks import Block, Update
from rammerge.engine.passes.statistics import Statistics
from rammerge.errors import InputError, closest
from rammerge.rules.elementwise import arithmetic, ram, sparsified
from rammerge.rules.spec import Method, Params, ResolvedMethod, Rule

METHODS: Mapping[str, Method] = MappingProxyType(
    {method.name: method for method in (*ram.METHODS, *arithmetic.METHODS, *sparsified.METHODS)}
)

__all__ = [
    "METHODS",
    "Block",
    "Method",
    "Params",
    "ResolvedMethod",
    "Rule",
    "Statistics",
    "Update",
    "find_method",
    "resolve",
    "restore",
]


def resolve(
    method: str | Method,
    preset: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    also: Iterable[str] = (),
) -> ResolvedMethod:
    """Settle a method's parameters: defaults, then the preset's, then `overrides`.

    Args:
        method: a name, or a method of the user's own.
        preset: a named set of the method's parameters.
        overrides: parameters by name.
        also: what a misspelt parameter may have meant besides the method's own parameters.

    Raises:
        InputError: an unknown method, preset or parameter (the nearest is named), or a value out of bounds.
    """
    spec = method if isinstance(method, Method) else find_method(method)
    if preset is not None and preset not in spec.presets:
        known = ", ".join(spec.presets) or "none"
        hint = closest(preset, spec.presets)
        raise InputError(f"method '{spec.name}' has no preset '{preset}'{hint}; its presets: {known}")
    chosen = {**(spec.presets[preset] if preset else {}), **(overrides or {})}
    try:
        params = spec.params.model_validate(chosen)
    except ValidationError as error:
        raise InputError(_explain(spec, error, also)) from error
    return ResolvedMethod(spec, preset, params)


def find_method(name: str) -> Method:
    """Return the method of that name.

    Raises:
        InputError: there is none; the nearest is named.
    """
    if name not in METHODS:
        raise InputError(f"unknown method '{name}'{closest(name, METHODS)}; the methods are {', '.join(METHODS)}")
    return METHODS[name]


def restore(method: str, preset: str | None, params: Mapping[str, Any]) -> ResolvedMethod:
    """Return what `resolve` gave, from its name, preset and settled parameters.

    Raises:
        InputError: the method does not exist, or it has different parameters.
    """
    return replace(resolve(method, None, params), preset=preset)


def _explain(spec: Method, error: ValidationError, also: Iterable[str]) -> str:
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    fields = spec.params.model_fields
    if first["type"] == "extra_forbidden":
        known, hint = ", ".join(fields) or "none", closest(name, [*fields, *also])
        return f"method '{spec.name}' has no parameter '{name}'{hint}; its parameters: {known}"
    return f"parameter '{name}' of method '{spec.name}': {first['msg'].lower()}, not {first['input']!r}"
