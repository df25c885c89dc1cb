"""Check a plan without doing its work: open local models by their headers, and forecast memory and disk."""

from collections.abc import Iterator
from pathlib import Path

from rich.filesize import decimal

from flows.run.planning import Plan
from rammerge.api import forecast
from rammerge.checkpoints.family import check_mergeable
from rammerge.checkpoints.fetch import fetch
from rammerge.system.home import home
from rammerge.system.space import free_bytes, require_space
from tasks.steps.merging import merge_options


def check(plan: Plan) -> Iterator[str]:
    """Yield the findings, one line each.

    Raises:
        InputError: a part of the recipe cannot work; the message names it and the fix.
    """
    recipe = plan.recipe
    yield f"{len(plan.variants)} variants: {', '.join(plan.variants)}"
    yield f"{len(plan.suites)} suites: {', '.join(suite.name for suite in plan.suites)}"
    remote = [o.source for o in (plan.base, *plan.agents.values()) if not Path(o.source).is_absolute()]
    if remote:
        yield f"from the hub, checked after the download: {', '.join(remote)}"
        return
    base = fetch(plan.base.source)
    agents = {name: fetch(origin.source, base=base) for name, origin in plan.agents.items()}
    checked = check_mergeable(base, agents, resize=recipe.output.resize)
    yield from (f"warning: {warning}" for warning in checked.warnings)
    options = merge_options(recipe.output, recipe.compute)
    methods = [method.resolved() for method in plan.variants.values()]
    forecasts = [forecast(checked.base, checked.agents, method, options) for method in methods]
    peak, size = max(forecasts)
    needed, free = size * len(plan.variants), free_bytes(home())
    yield f"memory: {peak / 2**20:.0f} MiB for a merge; disk: {decimal(needed)} of {decimal(free)} free"
    require_space(
        home(),
        needed,
        what=f"the merge of {len(plan.variants)} variants",
        where=str(home()),
        fix="make room, set RAMMERGE_HOME to a larger disk, or ask for fewer variants or a shorter output.dtype",
    )
