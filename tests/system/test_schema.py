"""Contract: what is wrong with what a user wrote is one sentence: the place, the key, the value and the fix."""

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from rammerge.errors import InputError
from rammerge.system.schema import check


class Part(BaseModel):
    """A part with one bounded key."""

    model_config = ConfigDict(extra="forbid")

    size: int = Field(default=1, ge=1)


class Whole(BaseModel):
    """Content with a key of each kind."""

    model_config = ConfigDict(extra="forbid")

    title: str
    kind: Literal["small", "large"] = "small"
    code: str = Field(default="a1", pattern="^[a-z][0-9]$")
    parts: list[Annotated[Part, BeforeValidator(lambda value: value)]] = []

    @model_validator(mode="after")
    def _fits(self) -> "Whole":
        if self.title == self.kind:
            raise ValueError("The title repeats the kind; change one")
        return self


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([], "file.yaml must be a mapping with the keys title, kind, code, parts"),
        ({}, "file.yaml: the key 'title' is missing; add it"),
        (
            {"tilte": "x"},
            "file.yaml: unknown key 'tilte' (did you mean 'title'?); the keys are title, kind, code, parts",
        ),
        (
            {"title": "x", "parts": [{"siz": 1}]},
            "file.yaml: unknown key 'parts.0.siz' (did you mean 'size'?); the keys are size",
        ),
        (
            {"title": "x", "parts": [{"size": 0}]},
            "file.yaml: parts.0.size: should be at least 1, not 0",
        ),
        (
            {"title": "x", "kind": "smal"},
            "file.yaml: kind: should be 'small' or 'large', not 'smal' (did you mean 'small'?)",
        ),
        ({"title": "x", "code": "11"}, "file.yaml: code: should look like [a-z][0-9], not '11'"),
        ({"title": ["x" * 99]}, "file.yaml: title: should be text, not a list"),
        ({"title": "small"}, "file.yaml: The title repeats the kind; change one"),
    ],
)
def test_a_problem_is_one_sentence(content: object, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        check(Whole, content, "file.yaml")
    assert str(caught.value) == sentence
