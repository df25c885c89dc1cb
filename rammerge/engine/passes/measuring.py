"""Pass 1: make the statistics that a method asks for."""

from collections.abc import Mapping, Sequence
from typing import Any

from rammerge.engine.passes.statistics import Pass, Statistics
from rammerge.engine.running import Runner
from rammerge.engine.session import Session


def runners_for(session: Session, passes: Sequence[Pass[Any]]) -> dict[Pass[Any], Runner]:
    """Return what computes each pass; to be asked for before the memory plan, which counts what they need."""
    agents = len(session.agents)
    for each in passes:
        session.reserve(each.reserved(agents))
    return {each: Runner(session, each.function(agents), each.height) for each in passes}


def measure(session: Session, runners: Mapping[Pass[Any], Runner]) -> Statistics:
    """Make the statistics that `runners_for` prepared.

    Raises:
        InputError: a NaN or an infinity in the base or in an agent.
    """
    return Statistics({each: each.collect(session, runner) for each, runner in runners.items()})
