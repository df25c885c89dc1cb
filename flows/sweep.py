"""Compare one method over a grid of parameters on a recipe's agents and suites. Nothing is promoted."""

import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import yaml
from prefect import State, flow
from prefect.states import Completed
from pydantic import ValidationError

from flows.merge_and_evaluate import merge_and_evaluate
from flows.run.artifacts import publish_sweep
from flows.run.outcome import Outcome
from flows.run.planning import plan
from rammerge.errors import InputError
from rammerge.recipe import Merge, Recipe
from rammerge.rules import resolve
from rammerge.system.atomic import write_text
from rammerge.system.home import home
from rammerge.system.schema import first_problem, reason
from tasks.runtime.environment import activate


@flow(name="sweep", flow_run_name="sweep {method}")
def sweep(recipe: Path, method: str, grid: dict[str, list[bool | int | float | str]]) -> "Outcome | State[Outcome]":
    """Run `recipe` with its merges replaced by `method` at every combination of the values in `grid`.

    The winner is chosen on validation, as usual. It is registered as a challenger of a separate model.
    """
    activate()
    spec = plan(recipe).recipe
    _check(spec, method, grid)
    state: Any = merge_and_evaluate(derive(spec, method, grid), return_state=True)
    outcome: Outcome = state.result()
    publish_sweep(outcome)
    return Completed(message=outcome.sentence, data=outcome)


def _check(recipe: Recipe, method: str, grid: dict[str, list[bool | int | float | str]]) -> None:
    """Raise InputError about what was asked for, rather than about the recipe that is written for it."""
    if not recipe.evaluates:
        raise recipe.error(("evaluation",), "a sweep chooses by scores, and evaluation is none; give suites")
    try:
        merge = Merge(method=method, sweep=grid)
        for values in itertools.product(*merge.sweep.values()):
            params = dict(zip(merge.sweep, values, strict=True))
            resolve(method, None, params, trusted=recipe.trust, directory=recipe.path.absolute().parent)
    except ValidationError as error:
        raise InputError(f"the sweep of {method}: {reason(first_problem(error))}") from None
    except InputError as error:
        raise InputError(f"the sweep of {method}: {error}") from None


def derive(recipe: Recipe, method: str, grid: dict[str, list[bool | int | float | str]]) -> Path:
    """Write the recipe of a sweep below rammerge's home under a name made from its content, and return the path."""
    content = recipe.model_dump(mode="json")
    content["base"]["source"] = recipe.resolve(recipe.base)
    for name, agent in recipe.agents.items():
        written = content["agents"][name]
        for part, source in zip(written["group"] or [written], agent.sources, strict=True):
            part["source"] = recipe.resolve(source)
    content["name"] = f"{recipe.name}-{method}-sweep"[:64]
    content["merges"] = [{"method": method, "sweep": grid}]
    content["evaluation"]["suites"] = [recipe.resolve_suite(suite) for suite in recipe.evaluation.suites]
    content["gates"], content["registry"] = [], {"promote": False}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    path = home() / "sweeps" / f"{content['name']}-{digest}.yaml"
    write_text(path, yaml.safe_dump(content, sort_keys=False))
    return path
