"""The part of a recipe that says where steps run, and within which limits."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator

from rammerge.errors import InputError
from rammerge.recipe.location import Location
from rammerge.recipe.section import Name, Section, Size
from rammerge.system.durations import parse_duration


def _check_duration(text: str) -> str:
    parse_duration(text)
    return text


Duration = Annotated[str, AfterValidator(_check_duration)]

DEVICE_PATTERN = r"^(cpu|cuda(:\d+)?)$"
Device = Annotated[str, StringConstraints(pattern=DEVICE_PATTERN)]

RUNNER_PATTERN = r"^(threads|(dask|ray)(://[A-Za-z0-9_.-]+:\d{1,5})?)$"
Runner = Annotated[str, StringConstraints(pattern=RUNNER_PATTERN)]


def parse_runner(text: str) -> str:
    """Return a runner that was given outside a recipe, after checking it.

    Raises:
        InputError: it is not a runner.
    """
    if not re.fullmatch(RUNNER_PATTERN, text):
        raise InputError(f"runner '{text}' is unknown; use threads, dask, ray, dask://HOST:PORT or ray://HOST:PORT")
    return text


def _check_kinds(devices: list[str]) -> list[str]:
    if len({device if device != "cuda" else "cuda:0" for device in devices}) < len(devices):
        raise ValueError("a device is listed twice; keep one")
    if "cpu" in devices and len(devices) > 1:
        raise ValueError("scores of processors and GPUs cannot be compared; give GPUs only, or cpu alone")
    return devices


Devices = Annotated[
    list[Device],
    Field(min_length=1),
    AfterValidator(_check_kinds),
    BeforeValidator(
        lambda value: [value] if isinstance(value, str) else value, json_schema_input_type=Device | list[Device]
    ),
]


class Pools(Section):
    """On which of Prefect's work pools steps run, where that is not the run's own; this changes no byte of the result.

    The workers of these pools share the run's home, at the same path.
    """

    merge: Name | None = Field(
        default=None, description="Pool whose workers count the overlap and merge; default: the run itself does."
    )
    evaluate: Name | None = Field(
        default=None, description="Pool whose workers run models; default: the run itself does."
    )
    at_once: int = Field(default=16, ge=1, le=64, description="How many steps the run gives to pools at a time.")
    wait: Duration = Field(
        default="5m", description="How long a step waits for a sign of life from a worker; then it has failed."
    )

    @property
    def named(self) -> dict[str, str]:
        """The pools by what their workers do."""
        return {does: pool for does, pool in (("merge", self.merge), ("evaluate", self.evaluate)) if pool}


class Compute(Section):
    """Where each kind of step runs, and limits of memory and time, which change no byte of the result."""

    device: Device = Field(
        default="cpu",
        description="Where merges and models run, unless the next two say otherwise: `cpu`, `cuda` or `cuda:N`.",
    )
    merge: Device | None = Field(
        default=None, description="Where overlap is counted and variants are merged; default: `device`."
    )
    evaluate: Devices | None = Field(
        default=None,
        description="Where models run: a device, or several GPUs, each of which runs one at a time; default: `device`.",
    )
    memory: Size | None = Field(
        default=None,
        description="Peak memory of the merging process; default: 1 GiB, or 512 MiB more than it already holds.",
    )
    device_memory: Size | None = Field(
        default=None,
        description="What blocks and matrices of a merge may take on a GPU; default: half of what is free there.",
    )
    runner: Runner = Field(
        default="threads",
        description="What runs the steps: `threads`, `dask`, `ray`, `dask://HOST:PORT` or `ray://HOST:PORT`.",
    )
    parts: int = Field(
        default=1,
        ge=1,
        description="In how many parts counting and merging are divided among the workers of a cluster.",
    )
    timeout: Duration = Field(
        default="24h", description="How long a step may take (`90s`, `30m`, `12h`, `2d`); then it has failed."
    )
    workers: Pools = Field(default=Pools(), description="The work pools that run merges and models, as below.")

    @model_validator(mode="after")
    def _has_one_way_out(self) -> "Compute":
        if self.runner != "threads" and self.workers.named:
            raise ValueError("needs either a cluster as `runner`, or pools as `workers`")
        return self

    @property
    def merge_on(self) -> str:
        """The device on which overlap is counted and variants are merged."""
        return self.merge or self.device

    @property
    def evaluate_on(self) -> tuple[str, ...]:
        """The devices on which models run."""
        return tuple(self.evaluate or [self.device])

    @property
    def kind_of_evaluation(self) -> Literal["cpu", "cuda"]:
        """The kind of these devices."""
        return "cpu" if "cpu" in self.evaluate_on else "cuda"

    def devices(self) -> dict[Location, str]:
        """Return all devices that the run itself uses, by their place in the file."""
        used: dict[Location, str] = {}
        if not self.workers.merge:
            used["compute", "merge" if self.merge else "device"] = self.merge_on
        if self.workers.evaluate:
            return used
        if not self.evaluate:
            return used | {("compute", "device"): self.device}
        return used | {("compute", "evaluate", at): each for at, each in enumerate(self.evaluate)}
