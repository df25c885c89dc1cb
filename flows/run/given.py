"""A recipe as a deployment's parameter: by path, inline, by git reference or by URL; Prefect's form shows all four."""

import json
import re
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

from prefect.runtime import flow_run
from pydantic import ConfigDict, Field, GetJsonSchemaHandler, PlainValidator
from pydantic_core.core_schema import CoreSchema

from flows.run.remote import GIT, URL, download, from_git
from rammerge.errors import InputError
from rammerge.recipe import Merge, Recipe, load, parse
from rammerge.recipe.section import short_form
from rammerge.rules import GROUP, METHODS

_INLINE = Path("inline recipe")  # not a file: a name for errors, in the directory in which the flow runs


class _MethodNames:
    """Makes a text a choice among the methods that are installed, whose code is not loaded for that."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(core), "enum": sorted({*METHODS, *entry_points(group=GROUP).names})}


class InlineMerge(Merge):
    """One variant, or several with `sweep` or `search`."""

    method: Annotated[str, _MethodNames()] = Field(
        default="", description="What `rammerge methods` lists; required unless there is a `search`."
    )


class InlineRecipe(Recipe):
    """The recipe's own keys. Paths are relative to the directory in which the flow runs, by default the checkout."""

    model_config = ConfigDict(title="Inline")

    merges: list[Annotated[InlineMerge, short_form("method", InlineMerge)]] = Field(  # type: ignore[assignment]  # each InlineMerge is a Merge
        min_length=1, description="The variants to make."
    )


_ByPath = Annotated[
    str,
    Field(title="By path", description="A YAML file that the worker can read, such as examples/zoo.yaml."),
]
_ByGit = Annotated[
    str,
    Field(
        title="By git reference",
        pattern=GIT,
        description="git+https://HOST/REPOSITORY@COMMIT#path/to/recipe.yaml, with the 40 hex digits of the commit.",
    ),
]
_ByUrl = Annotated[
    str,
    Field(
        title="By URL",
        pattern=URL,
        description="https://HOST/recipe.yaml#sha256=DIGEST, with the 64 hex digits of the file's SHA-256.",
    ),
]

# What a flow is given. Mistakes are told by `read`, in one sentence, so nothing is checked before.
GivenRecipe = Annotated[
    str | Path | dict[str, Any],
    PlainValidator(
        lambda given: given,
        json_schema_input_type=_ByPath | InlineRecipe | _ByGit | _ByUrl,
    ),
]


def read(given: str | Path | Mapping[str, Any]) -> Recipe:
    """Return the recipe that a flow was given.

    Raises:
        InputError: it is no valid recipe, cannot be fetched, or is not pinned to its content.
    """
    if isinstance(given, Mapping):
        return parse(_INLINE, json.dumps(_filled_in(given), ensure_ascii=False))
    text = str(given)
    if text.startswith("git+"):
        return load(from_git(text))
    return load(download(text) if re.match(r"https?:", text) else Path(text))


def run_name() -> str:
    """Return the name of a flow run that was given a recipe: the recipe's, where that takes no download."""
    given = flow_run.parameters["recipe"]
    if isinstance(given, Mapping):
        return str(given.get("name") or _INLINE)
    path = Path(str(given))
    try:
        return load(path).name if path.is_file() else path.stem
    except InputError:
        return path.stem  # a run without a name would crash; this one fails with the sentence


def _filled_in(value: Any) -> Any:
    """Return what a form was filled in with: without the fields that were left empty."""
    if isinstance(value, Mapping):
        return {key: _filled_in(item) for key, item in value.items() if item is not None}
    return [_filled_in(item) for item in value] if isinstance(value, list) else value
