"""What all parts of a recipe are made of: sections with known keys, names, and short forms."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, StringConstraints

from rammerge.system.sizes import parse_size

# Names that have a meaning of their own in leaderboards, registries and reports.
RESERVED = frozenset({"base", "overall", "best_agent", "champion"})

Scalar = bool | int | float | str
Dtype = Literal["float32", "bfloat16", "float16"]
# A name becomes a directory, a run name and a tag; these characters are safe in all of them.
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]


def _check_size(text: str) -> str:
    parse_size(text)
    return text


Size = Annotated[str, AfterValidator(_check_size)]


def is_name(text: str) -> bool:
    """Tell whether an agent, a variant or a recipe may be called `text`."""
    return re.fullmatch(NAME_PATTERN, text) is not None and text not in RESERVED


def as_name(text: str) -> str:
    """Return `text` with a dash for what a name cannot contain, from its first letter or digit on; it may be empty."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip("._-")


class Section(BaseModel):
    """A part of the recipe. Unknown keys are refused, and nothing changes after parsing."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def short_form(key: str, section: type[BaseModel]) -> BeforeValidator:
    """Accept a plain string as short for `{key: string}`."""
    return BeforeValidator(
        lambda value: {key: value} if isinstance(value, str) else value, json_schema_input_type=str | section
    )
