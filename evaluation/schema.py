"""Check what users write against a pydantic model; the first problem becomes one sentence with the fix."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from rammerge.errors import InputError, closest

Model = TypeVar("Model", bound=BaseModel)


def check(model: type[Model], content: object, where: str) -> Model:
    """Return `content` as a `model`; raise InputError naming `where`, the key and the fix if it is not one."""
    if not isinstance(content, Mapping):
        raise InputError(f"{where} must be a mapping with the keys {', '.join(model.model_fields)}")
    try:
        return model.model_validate(dict(content))
    except ValidationError as error:
        # A misspelt key also makes the right one missing: the misspelling is what the user has to see.
        problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
        raise InputError(f"{where}: {_sentence(problems[0], model)}") from None


def _sentence(problem: Mapping[str, Any], model: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{key}'{closest(key, model.model_fields)}; the keys are {', '.join(model.model_fields)}"
    if problem["type"] == "missing":
        return f"the key '{key}' is missing"
    reason = str(problem["msg"]).removeprefix("Value error, ")
    return f"{key}: {reason[:1].lower()}{reason[1:]} (found {problem['input']!r})"
