"""Compare one method over a grid of parameters on a recipe's agents and suites. Nothing is promoted."""

import hashlib
import json
from pathlib import Path

import yaml
from prefect import State, flow

from flows.merge_and_evaluate import merge_and_evaluate
from flows.run.outcome import Outcome
from rammerge.recipe import Recipe, load
from rammerge.system.atomic import write_text
from rammerge.system.home import home
from tasks.runtime.environment import activate


@flow(name="sweep", flow_run_name="sweep {method}")
def sweep(recipe: Path, method: str, grid: dict[str, list[bool | int | float | str]]) -> "Outcome | State[Outcome]":
    """Run `recipe` with its merges replaced by `method` at every combination of the values in `grid`.

    The winner is chosen on validation, as usual. It is registered as a challenger of a separate model.
    """
    activate()
    return merge_and_evaluate(derive(load(recipe), method, grid))


def derive(recipe: Recipe, method: str, grid: dict[str, list[bool | int | float | str]]) -> Path:
    """Write the recipe of a sweep below rammerge's home under a name made from its content, and return the path."""
    content = recipe.model_dump(mode="json")
    content["base"]["source"] = recipe.resolve(recipe.base)
    for name, agent in recipe.agents.items():
        content["agents"][name]["source"] = recipe.resolve(agent)
    content["name"] = f"{recipe.name}-{method}-sweep"[:64]
    content["merges"] = [{"method": method, "sweep": grid}]
    content["evaluation"]["suites"] = [recipe.resolve_suite(suite) for suite in recipe.evaluation.suites]
    content["gates"], content["registry"] = [], {"promote": False}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    path = home() / "sweeps" / f"{content['name']}-{digest}.yaml"
    write_text(path, yaml.safe_dump(content, sort_keys=False))
    return path
