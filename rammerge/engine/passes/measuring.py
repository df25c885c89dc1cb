"""Pass 1: compute the statistics that a method asks for."""

from collections.abc import Mapping, Sequence
from typing import Any

from rammerge.engine.passes.statistics import Pass, Statistics
from rammerge.engine.running import Runner
from rammerge.engine.session import Session


def runners_for(session: Session, passes: Sequence[Pass[Any]]) -> dict[Pass[Any], Runner]:
    """Return a runner for each pass. Call this before the memory plan is made, because the plan counts their needs."""
    agents = len(session.agents)
    for each in passes:
        session.reserve(each.reserved(agents))
    return {each: Runner(session, each.function(agents), each.height) for each in passes}


def measure(session: Session, runners: Mapping[Pass[Any], Runner]) -> Statistics:
    """Compute the statistics that `runners_for` prepared.

    Raises:
        InputError: a NaN or an infinity in the base or in an agent.
    """
    return Statistics({each: each.collect(session, runner) for each, runner in runners.items()})
