"""Check what users write against a pydantic model. The first problem becomes one sentence with the fix."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from rammerge.errors import InputError, closest

Model = TypeVar("Model", bound=BaseModel)

_LONGEST_SHOWN = 60
_KEYS = "should be a mapping of keys to values"
_NUMBER, _WHOLE, _SWITCH = "should be a number", "should be a whole number", "should be true or false"
# pydantic's problems in the words of people who write YAML and command lines.
_WORDS: Mapping[str, str] = {
    "dict_type": _KEYS,
    "mapping_type": _KEYS,
    "model_type": _KEYS,
    "list_type": "should be a list",
    "tuple_type": "should be a list",
    "string_type": "should be text",
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": "should be a finite number",
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_from_float": _WHOLE,
    "bool_parsing": _SWITCH,
    "greater_than": "should be above {gt:g}",
    "greater_than_equal": "should be at least {ge:g}",
    "less_than": "should be below {lt:g}",
    "less_than_equal": "should be at most {le:g}",
    "too_short": "needs {min_length} or more",
    "string_too_short": "needs {min_length} or more characters",
}


def check(model: type[Model], content: object, where: str) -> Model:
    """Return `content` as a `model`; raise InputError naming `where`, the key and the fix if it is not one."""
    if not isinstance(content, Mapping):
        raise InputError(f"{where} must be a mapping with the keys {', '.join(model.model_fields)}")
    try:
        return model.model_validate(dict(content))
    except ValidationError as error:
        raise InputError(f"{where}: {_sentence(first_problem(error), model)}") from None


def first_problem(error: ValidationError) -> ErrorDetails:
    """Return the problem to show. A misspelled key also makes the right one missing, so it comes first."""
    return min(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")


def keys(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """Return the valid keys of the part of a `model` at `location`, as far as its annotations tell."""
    current: Any = model
    for part in location:
        if isinstance(current, type) and issubclass(current, BaseModel):
            current = current.model_fields[str(part)].annotation
        elif get_origin(current) in (list, dict):
            current = get_args(current)[-1]
        while hasattr(current, "__metadata__"):  # Annotated[X, ...] -> X
            current = current.__origin__
        if type(None) in get_args(current):  # X | None -> X
            current = get_args(current)[0]
    return list(getattr(current, "model_fields", ()))


def reason(problem: ErrorDetails) -> str:
    """Return what is wrong with a value; the value itself, unless it is long; and the option that may be meant."""
    kind, message, given = problem["type"], problem["msg"].removeprefix("Value error, "), problem["input"]
    if kind == "value_error":  # a sentence of the model's own
        return message
    context = problem.get("ctx", {})
    options: list[str] = []
    if kind in _WORDS:
        message = _WORDS[kind].format(**context)
    elif kind == "string_pattern_mismatch":
        message = f"should look like {context['pattern'].strip('^$')}"
    elif kind == "literal_error":
        message, options = f"should be {context['expected']}", re.findall(r"'([^']*)'", context["expected"])
    shown = repr(given) if len(repr(given)) <= _LONGEST_SHOWN else f"a {type(given).__name__}"
    return f"{message[:1].lower()}{message[1:]}, not {shown}{closest(str(given), options)}"


def _sentence(problem: ErrorDetails, model: type[BaseModel]) -> str:
    key = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        known = keys(model, problem["loc"][:-1])
        listed = f"the keys are {', '.join(known)}" if known else "leave it out"
        return f"unknown key '{key}'{closest(str(problem['loc'][-1]), known)}; {listed}"
    if problem["type"] == "missing":
        return f"the key '{key}' is missing; add it"
    return f"{key}: {reason(problem)}" if key else reason(problem)
