"""Models whose licences are known to be in the way of giving their merge away, where a recipe wants none of them."""

from collections.abc import Mapping
from pathlib import Path

from flows.run.planned import Plan
from rammerge.checkpoints.licences import about_licences, find_licence


def require_licences(plan: Plan, models: Mapping[str, Path]) -> None:
    """Refuse models by their directories if the recipe says so; without that, each sentence is a warning.

    Raises:
        InputError: names the models and their licences.
    """
    if plan.recipe.registry.licences == "warn":
        return
    if problems := about_licences({name: find_licence(path) for name, path in models.items()}):
        words = f"{'; '.join(problems)}; `licences: warn` merges them all the same"
        raise plan.recipe.error(("registry", "licences"), words)
