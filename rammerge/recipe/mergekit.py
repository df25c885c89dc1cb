"""A configuration of mergekit as a recipe that computes the same, or a sentence that says why there is none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rammerge.errors import InputError, closest
from rammerge.recipe.mergekit_methods import METHODS, NO_EQUAL, Settings, Translation
from rammerge.recipe.section import as_name, is_name

_KEYS = ("models", "merge_method", "base_model", "dtype", "out_dtype", "parameters", "tokenizer_source", "tokenizer")
_DTYPES = ("float32", "bfloat16", "float16")
_PARTS = {"slices": "layers of several models", "modules": "parts of a model"}
_LONGEST_NAME = 50


@dataclass(frozen=True)
class Imported:
    """The parts of a recipe that a configuration of mergekit decides.

    Attributes:
        base: source of the base.
        agents: name -> source.
        merge: the entry of `merges`.
        output: the section `output`.
        notes: what differs all the same, one sentence each.
    """

    base: str
    agents: Mapping[str, str]
    merge: Mapping[str, Any]
    output: Mapping[str, str]
    notes: Sequence[str]


def translate(content: Any, where: str) -> Imported:
    """Return what the content of a mergekit configuration is as a recipe.

    Args:
        content: the file's content.
        where: the file, for messages.

    Raises:
        InputError: no recipe does the same; the sentence says which part has no equal.
    """
    _check_form(content, where)
    method = _method(content, where)
    models = [(_source(entry["model"], where), entry.get("parameters") or {}) for entry in content["models"]]
    base = content.get("base_model") or (models[0][0] if method == "linear" else None)
    if base is None:
        raise InputError(f"{where}: {method} needs a base_model; add it")
    base = _source(base, where)
    if method == "linear":
        base, agents, weighed = models[0][0], models[1:], models
    else:
        weighed = agents = [(source, own) for source, own in models if source != base]
    if not agents:
        raise InputError(f"{where}: there is no model besides the base {base}; list what was trained from it")
    settings = Settings(where, content.get("parameters") or {}, [own for _, own in weighed])
    translation = METHODS[method](settings)
    settings.refuse_others()
    named = dict(zip(_names([source for source, _ in agents]), (source for source, _ in agents), strict=True))
    return Imported(
        base, named, _merge(translation, list(named)), _output(content, base, named, where), translation.notes
    )


def _check_form(content: Any, where: str) -> None:
    if not isinstance(content, Mapping) or "merge_method" not in content:
        raise InputError(f"{where} is not a configuration of mergekit: it has no merge_method")
    for key, what in _PARTS.items():
        if content.get(key):
            raise InputError(f"{where}: `{key}` takes {what}, and a recipe merges whole models; list them as `models`")
    if others := sorted(map(str, content.keys() - {*_KEYS, *_PARTS})):
        raise InputError(f"{where}: the key {others[0]} has no equal in a recipe{closest(others[0], _KEYS)}; remove it")
    models = content.get("models")
    if not isinstance(models, list) or not all(isinstance(entry, Mapping) and "model" in entry for entry in models):
        raise InputError(f"{where}: `models` must be a list of entries with `model`")
    if not models:
        raise InputError(f"{where}: `models` is empty; list the models to merge")
    settings = [content.get("parameters"), *(entry.get("parameters") for entry in models)]
    if not all(given is None or isinstance(given, Mapping) for given in settings):
        raise InputError(f"{where}: `parameters` must be names with values")


def _method(content: Mapping[str, Any], where: str) -> str:
    method = str(content["merge_method"])
    if method in METHODS:
        return method
    why = NO_EQUAL.get(method)
    if why is None:
        raise InputError(f"{where}: unknown merge_method '{method}'{closest(method, [*METHODS, *NO_EQUAL])}")
    raise InputError(f"{where}: the method {method} has no equal in a recipe: {why}")


def _source(model: Any, where: str) -> str:
    if not isinstance(model, str) or not model:
        raise InputError(f"{where}: the model {model!r} must be a directory or a hub id")
    if "+" in model:
        raise InputError(f"{where}: {model} is a model with an adapter; a recipe takes the adapter itself as an agent")
    return model


def _merge(translation: Translation, names: Sequence[str]) -> dict[str, Any]:
    merge: dict[str, Any] = {"method": translation.method}
    if translation.preset:
        merge["preset"] = translation.preset
    if translation.params:
        merge["params"] = translation.params
    if translation.weights is not None and set(translation.weights) != {1.0}:
        merge["weights"] = dict(zip(names, translation.weights, strict=True))
    return merge


def _output(content: Mapping[str, Any], base: str, agents: Mapping[str, str], where: str) -> dict[str, str]:
    output: dict[str, str] = {}
    if dtype := content.get("out_dtype") or content.get("dtype"):
        if dtype not in _DTYPES:
            raise InputError(f"{where}: the dtype {dtype} is none of {', '.join(_DTYPES)}; change it")
        output["dtype"] = dtype
    section = content.get("tokenizer") or {}
    whose = content.get("tokenizer_source")
    if whose is None and isinstance(section, Mapping) and section.keys() <= {"source"}:
        whose = section.get("source")
    elif section:
        raise InputError(f"{where}: of `tokenizer` a recipe knows the source alone; remove the rest")
    if whose in (None, "base", base):
        return output
    names = {source: name for name, source in agents.items()}
    if whose not in names:
        raise InputError(f"{where}: '{whose}' is not a model of the merge, so it lends no tokenizer; name one that is")
    return output | {"tokenizer": names[whose]}


def _names(sources: Sequence[str]) -> list[str]:
    """Return a name for each source: the last part of its path, with a number where that is taken."""
    names: list[str] = []
    for number, source in enumerate(sources, start=1):
        last = as_name(Path(source.partition("@")[0]).name)[:_LONGEST_NAME]
        free = is_name(last) and last not in names
        names.append(last if free else f"{last or 'agent'}-{number}")
    return names
