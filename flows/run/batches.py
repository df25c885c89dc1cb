"""Choose how many prompts are asked at a time, where the recipe leaves that open."""

from dataclasses import replace

from prefect.futures import PrefectFuture

from flows.run.planned import Plan
from flows.run.settling import settle
from tasks.steps.batches import choose_batches
from tasks.steps.sources import Fetched


def with_batches(todo: Plan, base: PrefectFuture[Fetched]) -> Plan:
    """Return the plan with the batches that there is room for beside the base."""
    if not todo.chooses_batches:
        return todo
    chosen = choose_batches.submit(base, todo.suites, todo.conditions)
    settle(chosen)
    return replace(todo, batches=chosen.result().sizes)
