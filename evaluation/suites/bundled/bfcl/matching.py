"""Whether calls are among the possible answers, by the rules of BFCL's own checker for Python.

An answer gives for each parameter the values that are right; the value "" says that it may be left out. Text is
compared without case and punctuation.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.suites.bundled.bfcl.calls import Call

_TYPES: dict[str, type] = {
    "string": str,
    "integer": int,
    "float": float,
    "boolean": bool,
    "array": list,
    "tuple": list,
    "dict": dict,
    "any": str,
}
_LISTS = ("array", "tuple")
_OMITTED = ""


def all_match(
    functions: Sequence[Mapping[str, Any]], calls: Sequence[Call], answers: Sequence[Mapping[str, Any]]
) -> bool:
    """Return whether there is a different call for every answer, and no other call.

    Args:
        functions: descriptions of the functions on offer.
        calls: what a model calls, in any order.
        answers: for each wanted call {function: {parameter: [right values]}}.
    """
    left = list(calls)
    for answer in answers:
        ((name, allowed),) = answer.items()
        function = next(function for function in functions if function["name"] == name)
        fitting = next((call for call in left if _matches(function, call, allowed)), None)
        if fitting is None:
            return False
        left.remove(fitting)
    return not left


def _matches(function: Mapping[str, Any], call: Call, allowed: Mapping[str, Sequence[Any]]) -> bool:
    name, given = call
    known = function["parameters"]["properties"]
    return (
        name == function["name"]
        and all(parameter in given for parameter in function["parameters"]["required"])
        and all(
            parameter in known and parameter in allowed and _is_right(known[parameter], value, allowed[parameter])
            for parameter, value in given.items()
        )
        and all(parameter in given or _OMITTED in values for parameter, values in allowed.items())
    )


def _is_right(described: Mapping[str, Any], value: Any, allowed: Sequence[Any]) -> bool:
    kind = described["type"]
    wanted, inner = _TYPES[kind], _TYPES[described["items"]["type"]] if kind in _LISTS else None
    if kind == "tuple" and isinstance(value, tuple):
        value = list(value)
    if kind == "float" and type(value) is int:
        value = float(value)
    # Right values of a different type than the description's are names of variables, or whatever else was accepted.
    usual = next((type(each) for each in allowed if each != _OMITTED), None)
    literal = usual in (None, wanted) and type(value) is wanted and _has_inner_type(value, inner, allowed)
    if not literal:
        return type(value) in (wanted, usual) and value in allowed
    if wanted is dict:
        return _dict_is_right(value, allowed)
    if inner is dict:
        return any(
            len(value) == len(several) and all(map(_dict_is_right, value, ([each] for each in several)))
            for several in allowed
        )
    if wanted in (str, list):
        return _plain(value) in [_plain(each) for each in allowed if isinstance(each, wanted | str)]
    return value in allowed


def _has_inner_type(value: Any, inner: type | None, allowed: Sequence[Any]) -> bool:
    """Return whether the elements of a list have the type that is described, or that of the elements of an answer."""
    if inner is None:
        return True
    return any(
        not isinstance(each, list)
        or all(type(element) in (inner, next((type(e) for e in each if e != _OMITTED), None)) for element in value)
        for each in allowed
    )


def _dict_is_right(value: Any, allowed: Sequence[Any]) -> bool:
    return isinstance(value, dict) and any(
        all(key in each and _plain(content) in map(_plain, _listed(each[key])) for key, content in value.items())
        and all(key in value or _OMITTED in _listed(right) for key, right in each.items())
        for each in allowed
        if isinstance(each, dict)
    )


def _listed(right: Any) -> list[Any]:
    """Return the right values of a key; in dictionaries of dictionaries there is sometimes one, and no list."""
    return right if isinstance(right, list) else [right]


def _plain(value: Any) -> Any:
    """Return text without what does not count, also in a list; other values as they are."""
    if isinstance(value, str):
        return re.sub(r"[ ,./\-_*^]", "", value).lower().replace("'", '"')
    if isinstance(value, list):
        return [_plain(each) if isinstance(each, str) else each for each in value]
    return value
