"""The part of a recipe that asks for a search: methods with ranges of parameters that compete under one budget."""

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from rammerge.recipe.section import Scalar, Section

Objective = Literal["average", "worst", "retention"]

_RANGE = 2


class Domain(Section):
    """What a parameter may be: `low` to `high`, or one of `values`.

    Short forms: `[low, high]` for two numbers, another list for its values, and a single value.
    """

    low: float | None = Field(default=None, description="Lowest value.")
    high: float | None = Field(default=None, description="Highest value.")
    log: bool = Field(default=False, description="Whether ratios count rather than differences.")
    values: list[Scalar] = Field(default=[], description="The values to choose from, in place of a range.")
    when: dict[str, Scalar] = Field(
        default={}, description="Vary the parameter only where others have these values; elsewhere it has its default."
    )

    @model_validator(mode="after")
    def _is_one_thing(self) -> "Domain":
        if (self.low is None) != (self.high is None) or (self.low is None) == (not self.values):
            raise ValueError("needs either `low` and `high`, or `values`")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"low must be below high, and {self.low:g} is not below {self.high:g}")
        if self.log and (self.low is None or self.low <= 0):
            raise ValueError("log needs a range above 0")
        if len(set(map(repr, self.values))) != len(self.values):
            raise ValueError("values contains a value twice; keep one")
        return self

    @property
    def fixed(self) -> bool:
        """Whether there is nothing to choose."""
        return len(self.values) == 1


def _read_domain(value: Any) -> Any:
    match value:
        case list():
            numbers = all(isinstance(part, int | float) and not isinstance(part, bool) for part in value)
            if numbers and len(value) == _RANGE:
                return {"low": value[0], "high": value[1]}
            return {"values": value}
        case bool() | int() | float() | str():
            return {"values": [value]}
    return value


WrittenDomain = Annotated[Domain, BeforeValidator(_read_domain, json_schema_input_type=Scalar | list[Scalar] | Domain)]


class Search(Section):
    """Let methods compete for the best average on validation. The winner and the runner-up become variants."""

    methods: dict[str, dict[str, WrittenDomain]] = Field(
        min_length=1, description="Method to parameter to what it may be; other parameters have their defaults."
    )
    trials: int = Field(default=40, ge=2, le=10_000, description="Number of parameter sets to try.")
    items: int | None = Field(
        default=None, ge=1, description="Answers to validation items that all trials may take together."
    )
    minutes: float | None = Field(default=None, gt=0, description="Time after which no further trial begins.")
    objectives: list[Objective] = Field(
        default=["average"], min_length=1, description="What to maximize: `average`, `worst` suite, `retention`."
    )
    keep: int = Field(default=4, ge=0, le=1000, description="Trial models that stay on the disk between comparisons.")
    database: str | None = Field(
        default=None, description="Address of the database of trials; default: SQLite below the home."
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> "Search":
        if len(set(self.objectives)) != len(self.objectives):
            raise ValueError(f"an objective is listed twice; keep one of each: {', '.join(get_args(Objective))}")
        return self
