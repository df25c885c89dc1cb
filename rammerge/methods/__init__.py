"""The merge methods, and how a name, a preset and overrides become a settled set of parameters."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from rammerge.errors import InputError, closest
from rammerge.methods.elementwise import arithmetic, ram, sparsified
from rammerge.methods.spec import Block, Method, Params, ResolvedMethod, Statistics, Update

METHODS: Mapping[str, Method] = MappingProxyType(
    {method.name: method for method in (*ram.METHODS, *arithmetic.METHODS, *sparsified.METHODS)}
)

__all__ = ["METHODS", "Block", "Method", "Params", "ResolvedMethod", "Statistics", "Update", "parameters", "resolve"]


def resolve(method: str, preset: str | None = None, overrides: Mapping[str, Any] | None = None) -> ResolvedMethod:
    """Settle a method's parameters: defaults, then the preset's, then `overrides`.

    Raises:
        InputError: an unknown method, preset or parameter (the nearest is named), or a value out of bounds.
    """
    if method not in METHODS:
        raise InputError(f"unknown method '{method}'{closest(method, METHODS)}; the methods are {', '.join(METHODS)}")
    spec = METHODS[method]
    if preset is not None and preset not in spec.presets:
        known = ", ".join(spec.presets) or "none"
        hint = closest(preset, spec.presets)
        raise InputError(f"method '{method}' has no preset '{preset}'{hint}; its presets: {known}")
    chosen = {**(spec.presets[preset] if preset else {}), **(overrides or {})}
    try:
        params = spec.params.model_validate(chosen)
    except ValidationError as error:
        raise InputError(_explain(spec, error)) from error
    return ResolvedMethod(method, preset, MappingProxyType(params.model_dump()))


def parameters(method: ResolvedMethod) -> Params:
    """Return the typed parameters of a resolved method."""
    return METHODS[method.name].params.model_validate(dict(method.params))


def _explain(spec: Method, error: ValidationError) -> str:
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    fields = spec.params.model_fields
    if first["type"] == "extra_forbidden":
        known = ", ".join(fields) or "none"
        return f"method '{spec.name}' has no parameter '{name}'{closest(name, fields)}; its parameters: {known}"
    return f"parameter '{name}' of method '{spec.name}': {first['msg'].lower()}, not {first['input']!r}"
