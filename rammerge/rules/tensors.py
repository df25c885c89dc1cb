"""Rules for some of a model's tensors: copy them, or merge them with other parameters."""

from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rammerge.errors import InputError, closest
from rammerge.system.schema import check


class TensorRule(BaseModel):
    """Copy the tensors that a pattern matches from one model, or merge them with other parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    match: str = Field(min_length=1, description="A pattern of names, as of files: `*`, `?` and `[0-9]`.")
    use: str | None = Field(default=None, description="`base` or an agent: the model that they are copied from.")
    params: dict[str, Any] = Field(default={}, description="Parameters of the method for them.")

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        if (self.use is None) == (not self.params):
            raise ValueError(f"the rule for '{self.match}' needs either `use` or `params`")
        return self

    def matches(self, tensor: str) -> bool:
        """Tell whether the rule is about a tensor."""
        return fnmatchcase(tensor, self.match)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {"match": self.match} | ({"use": self.use} if self.use else {"params": dict(self.params)})


def read_rules(rules: Sequence[Mapping[str, Any]]) -> tuple[TensorRule, ...]:
    """Return rules from plain data.

    Raises:
        InputError: one has an unknown key, or says nothing or two things.
    """
    return tuple(check(TensorRule, rule, f"tensors[{index}]") for index, rule in enumerate(rules))


def check_models(rules: Sequence[TensorRule], agents: Collection[str]) -> None:
    """Check that rules copy from existing models.

    Raises:
        InputError: one does not; the message names the nearest.
    """
    for rule in rules:
        if rule.use not in {None, "base", *agents}:
            near = closest(str(rule.use), ["base", *agents])
            raise InputError(f"tensors '{rule.match}' use '{rule.use}', which is neither base nor an agent{near}")


def check_matches(rules: Sequence[TensorRule], tensors: Collection[str], tied: Mapping[str, str]) -> None:
    """Check that each rule matches a tensor.

    Args:
        rules: the rules.
        tensors: the names of the model's float tensors.
        tied: alias -> name, of tensors that are stored under two names.

    Raises:
        InputError: one matches none; the message names the nearest tensor.
    """
    for rule in rules:
        if any(map(rule.matches, tensors)):
            continue
        partners = [f"; {alias} is tied to {name}, match that" for alias, name in tied.items() if rule.matches(alias)]
        hint = partners[0] if partners else closest(rule.match.replace("*", ""), tensors) or "; correct the pattern"
        raise InputError(f"tensors '{rule.match}' match no float tensor of the base{hint}")
