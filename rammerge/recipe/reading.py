"""Read a recipe file, and turn every error into one sentence that names file, line, key and fix."""

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from rammerge.errors import InputError, closest
from rammerge.recipe.compute import DEVICE_PATTERN, RUNNER_PATTERN
from rammerge.recipe.evaluation import WrittenGate
from rammerge.recipe.location import Location, error_at
from rammerge.recipe.merges import Merge
from rammerge.recipe.model import Recipe
from rammerge.recipe.registry import BLOCK_PATTERN, REPOSITORY_PATTERN
from rammerge.recipe.secrets import refuse_secrets
from rammerge.recipe.section import NAME_PATTERN, RESERVED
from rammerge.recipe.sources import Agent, Source
from rammerge.recipe.yardsticks import Yardstick
from rammerge.system.schema import first_problem, keys, reason

MAX_BYTES = 1 << 20
MAX_DEPTH = 50

# What text must be, by the pattern that it has to match.
_FORMS = {
    NAME_PATTERN: "a name: use letters, digits, '.', '_', '-', at most 64",
    DEVICE_PATTERN: "a device: use cpu, cuda or cuda:N",
    RUNNER_PATTERN: "a runner: use threads, dask, ray, dask://HOST:PORT or ray://HOST:PORT",
    REPOSITORY_PATTERN: "a repository on the hub: write ORG/NAME",
    BLOCK_PATTERN: "a notification block of Prefect's: write TYPE/NAME, such as slack-webhook/mlops",
}


def load(path: Path) -> Recipe:
    """Return the checked recipe at `path`; InputError names file, line, key and the closest valid key."""
    return parse(path, _read(path))


def parse(path: Path, text: str) -> Recipe:
    """Return the checked recipe that `text` would be in the file `path`; InputError as of `load`."""
    refuse_secrets(path, text)
    content, lines, unquoted = _parse(path, text)
    try:
        recipe = Recipe.model_validate(content).place(path, lines)
    except ValidationError as error:
        raise _explain(path, lines, unquoted, first_problem(error)) from None
    models = ["base", *recipe.members()]
    _check_names(recipe)
    if (whose := recipe.output.tokenizer) not in models:
        near = closest(whose, models)
        raise recipe.error(("output", "tokenizer"), f"'{whose}' is neither base nor an agent{near}")
    variants = recipe.variants()
    if len(recipe.searches) > 1:
        raise recipe.error(list(recipe.searches)[1], "a recipe has one search; let all methods compete in the first")
    if not recipe.evaluates:
        _check_unevaluated(recipe, len(variants))
    return recipe


def _check_names(recipe: Recipe) -> None:
    """Refuse names of agents and yardsticks that mean something else on the leaderboard."""
    for name in recipe.yardsticks.keys() & {*recipe.members(), *recipe.agents}:
        raise recipe.error(("yardsticks", name), "the name is an agent's; choose another")
    for section in ("agents", "yardsticks"):
        for name in getattr(recipe, section).keys() & {*recipe.routed, *RESERVED}:
            raise recipe.error((section, name), "the name is reserved; choose another")


def _check_unevaluated(recipe: Recipe, variants: int) -> None:
    """Refuse what only scores decide in a recipe without an evaluation."""
    for location in recipe.searches:
        raise recipe.error(
            location, "a search chooses by scores, and evaluation is none; name a method, or give suites"
        )
    if recipe.yardsticks:
        raise recipe.error(
            ("yardsticks",), "yardsticks are evaluated, and evaluation is none; remove them, or give suites"
        )
    if recipe.gates:
        raise recipe.error(("gates",), "gates judge scores, and evaluation is none; remove the gates, or give suites")
    if variants > 1:
        raise recipe.error(
            ("merges",), f"scores choose one of {variants} variants, and evaluation is none; keep one, or give suites"
        )
    if recipe.registry.promote and "promote" in recipe.registry.model_fields_set:
        raise recipe.error(
            ("registry", "promote"),
            f"scores decide about a promotion, and evaluation is none; remove the key, and promote by hand with "
            f"`rammerge promote {recipe.model_name} VERSION`",
        )
    if recipe.registry.approval == "required":
        raise recipe.error(
            ("registry", "approval"), "nothing is promoted, since evaluation is none; remove the key, or give suites"
        )


def quoted(text: str) -> str:
    """Return `text` as a value in a recipe: as it is where it is read back so, and in quotes elsewhere."""
    with suppress(yaml.YAMLError, ValueError):
        if "\n" not in text and yaml.load(f"key: {text}", Loader=_Loader) == {"key": text}:
            return text
    return yaml.safe_dump(text, default_style='"', allow_unicode=True, width=MAX_BYTES).rstrip("\n")


def _read(path: Path) -> str:
    try:
        if not path.is_file():
            raise InputError(f"{path}: no such recipe file; give the path of a YAML file")
        if path.stat().st_size > MAX_BYTES:
            raise InputError(
                f"{path}: larger than {MAX_BYTES >> 20} MiB, so not a recipe; give the path of a YAML file"
            )
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text, so not a recipe; give the path of a YAML file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from None


class _Loader(yaml.SafeLoader):
    """YAML in which `1e-5` is a number; YAML 1.1 would require `1.0e-5`."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _parse(path: Path, text: str) -> tuple[Any, dict[Location, int], dict[Location, str]]:
    """Return the content, the line of each part, and the text in the file of each unquoted value."""
    try:
        loader = _Loader(text)
        _check_events(path, text)
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise InputError(f"{path}:1: not a recipe: it needs the keys name, base, agents, merges and evaluation")
        parts = list(_parts(path, node, ()))
        lines = {(): 1, **{location: line for location, line, _ in parts}}
        unquoted = {location: text for location, _, text in parts if text is not None}
        content = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        where = f"{path}:{error.problem_mark.line + 1}" if error.problem_mark else str(path)
        raise InputError(f"{where}: not valid YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    except (RecursionError, ValueError):
        raise InputError(
            f"{path}: not valid YAML: nested too deeply, or a number or date that does not exist"
        ) from None
    for location in _not_finite(content, ()):
        raise error_at(path, lines, location, "not a finite number; give one")
    return content, lines, unquoted


def _check_events(path: Path, text: str) -> None:
    """Refuse aliases, which can make a small file expand without limit, and nesting that takes YAML forever."""
    depth = 0
    for event in yaml.parse(text):
        if isinstance(event, yaml.AliasEvent):
            line = event.start_mark.line + 1 if event.start_mark else 1
            raise InputError(f"{path}:{line}: YAML aliases are not allowed; write the value out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise RecursionError


def _parts(path: Path, node: yaml.Node, at: Location) -> Iterator[tuple[Location, int, str | None]]:
    """Yield each part's location, its line and, for an unquoted scalar, its text.

    Raises:
        InputError: a key occurs twice, so that the later one would silently win, or YAML does not read it as text.
    """
    children: dict[str | int, tuple[yaml.Node, int]] = {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise InputError(f"{path}:{line}: a key must be a plain word")
            if key.tag != "tag:yaml.org,2002:str":
                raise InputError(f"{path}:{line}: {_misread(key.value, key.tag.rpartition(':')[2])}")
            if key.value in children:
                raise InputError(f"{path}:{line}: the key '{key.value}' occurs twice; keep one")
            children[key.value] = (value, line)
    elif isinstance(node, yaml.SequenceNode):
        children = {index: (value, value.start_mark.line + 1) for index, value in enumerate(node.value)}
    for name, (value, line) in children.items():
        yield (*at, name), line, value.value if isinstance(value, yaml.ScalarNode) and value.style is None else None
        yield from _parts(path, value, (*at, name))


def _misread(text: str, kind: str) -> str:
    """Return the sentence about unquoted text that YAML does not read as text."""
    kinds = {"bool": "true or false", "int": "a number", "float": "a number", "null": "nothing"}
    kinds |= {"timestamp": "a date", "date": "a date", "datetime": "a date", "NoneType": "nothing"}
    return f'YAML reads {text} as {kinds.get(kind, kind)}; put it in quotes: "{text}"'


def _not_finite(value: Any, at: Location) -> Iterator[Location]:
    if isinstance(value, float) and not math.isfinite(value):
        yield at
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, child in children:
        yield from _not_finite(child, (*at, name))


def _explain(
    path: Path, lines: Mapping[Location, int], unquoted: Mapping[Location, str], error: ErrorDetails
) -> InputError:
    kind, given = error["type"], error["input"]
    # pydantic adds a part "[key]" for a mapping's key, and a type's name for a member of a union; the file has neither.
    location = tuple(part for part in error["loc"] if part not in {"[key]", "bool", "int", "float", "str"})
    if kind == "extra_forbidden":
        known = sorted(keys(Recipe, location[:-1]))
        return error_at(
            path, lines, location, f"unknown key{closest(str(location[-1]), known)}; known: {', '.join(known)}"
        )
    if kind == "missing":
        return error_at(path, lines, location[:-1], f"the key '{location[-1]}' is missing; add it")
    if kind == "string_pattern_mismatch" and (form := _FORMS.get(error["ctx"]["pattern"])):
        return error_at(path, lines, location, f"'{given}' is not {form}")
    if location in unquoted and (kind == "string_type" or _text_will_do(error)):
        text = unquoted[location]
        message = _misread(text, type(given).__name__) if text else "has no value; give one or remove the key"
        return error_at(path, lines, location, message)
    if kind == "bool_type":  # the first member of Scalar
        error = {**error, "msg": "should be a number, a word or true/false"}
    return error_at(path, lines, location, reason(error))


def _text_will_do(error: ErrorDetails) -> bool:
    """Tell whether plain text is allowed in place of the section that `error` is about."""
    sections = {section.__name__ for section in (Source, Agent, Yardstick, Merge, WrittenGate)}
    return error["type"] == "model_type" and error["ctx"]["class_name"] in sections
