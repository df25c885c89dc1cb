"""Compare one method over a grid of parameters on a recipe's agents and suites. Nothing is promoted."""

import itertools
import re

from prefect import State, flow
from pydantic import ValidationError

from flows.merge_and_evaluate import carry_out
from flows.run.given import GivenRecipe, read
from flows.run.outcome import Outcome
from flows.run.planning import look_up
from rammerge.errors import InputError
from rammerge.recipe import Merge, Recipe, WrittenStep, with_values
from rammerge.rules import resolve
from rammerge.system.redaction import without_secrets
from tasks.runtime.environment import activate
from tasks.runtime.models import ended_by_interrupt
from tasks.runtime.runner import workers

Grid = dict[str, list[bool | int | float | str]]


@flow(name="sweep", flow_run_name="sweep {method}", task_runner=workers())
@ended_by_interrupt()
@without_secrets
def sweep(
    recipe: GivenRecipe, method: str, grid: dict[str, list[bool | int | float | str]]
) -> "Outcome | State[Outcome]":
    """Run a recipe with its merges replaced by `method` at every combination of the values in `grid`.

    The winner is chosen on validation, as usual. It is registered as a challenger of a separate model.

    Args:
        recipe: by path, inline, by git reference (`git+https://HOST/REPOSITORY@COMMIT#path/to/recipe.yaml`), or by URL
            (`https://HOST/recipe.yaml#sha256=DIGEST`).
        method: what `rammerge methods` lists.
        grid: parameter to values.
    """
    activate()
    return carry_out(look_up(derive(read(recipe), method, grid)))


def derive(recipe: Recipe, method: str, grid: Grid) -> Recipe:
    """Return the recipe of a sweep. Its file is that of `recipe`, beside which models, suites and modules are found.

    Raises:
        InputError: the method, a parameter or a value is wrong; the message is about what was asked for.
    """
    if not recipe.evaluates:
        raise recipe.error(("evaluation",), "a sweep chooses by scores, and evaluation is none; give suites")
    try:
        prompts = next((merge.prompts for merge in recipe.merges if merge.method == method), None)
        steps: list[WrittenStep] = list(dict.fromkeys(name.partition(".")[0] for name in grid if "." in name))
        merge = Merge(method=method, sweep=grid, prompts=prompts, then=steps)
        for values in itertools.product(*merge.sweep.values()):
            params, then = with_values(merge.then, dict(zip(merge.sweep, values, strict=True)))
            resolve(method, None, params, then=then, trusted=recipe.trust, directory=recipe.directory)
        name = re.sub(r"[^A-Za-z0-9._-]", "_", f"{recipe.name}-{method}-sweep")[:64]
        registry = recipe.registry.model_copy(update={"model": None, "promote": False})
        swept = recipe.model_copy(update={"name": name, "merges": [merge], "gates": [], "registry": registry})
        swept.variants()
    except ValidationError as error:
        raise InputError(f"the sweep of {method}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
    except InputError as error:
        raise InputError(f"the sweep of {method}: {error}") from None
    return swept
