"""The steps that may follow a method, and how a recipe's words become settled ones."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from rammerge.errors import InputError, closest
from rammerge.rules.spectral.calibration import SVC
from rammerge.rules.spectral.steps import ChosenStep, ThenStep
from rammerge.system.schema import check

STEPS: Mapping[str, ThenStep] = MappingProxyType({step.name: step for step in (SVC,)})


def read_steps(steps: Sequence[str | Mapping[str, Any]]) -> tuple[ChosenStep, ...]:
    """Return steps from plain data: each a name, or a name and its parameters.

    Raises:
        InputError: there is no such step, the nearest is named; or a parameter is wrong.
    """
    return tuple(_read(each, f"then[{index}]") for index, each in enumerate(steps))


def _read(written: str | Mapping[str, Any], where: str) -> ChosenStep:
    given = {written: {}} if isinstance(written, str) else written
    if not isinstance(given, Mapping) or len(given) != 1:
        raise InputError(f"{where} must be one step, such as svc, or {{svc: {{alpha: 0.1}}}}")
    ((name, params),) = given.items()
    if name not in STEPS:
        raise InputError(f"{where}: unknown step '{name}'{closest(name, STEPS)}; the steps are {', '.join(STEPS)}")
    return ChosenStep(STEPS[name], check(STEPS[name].params, params or {}, f"{where}.{name}"))
