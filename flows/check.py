"""Check a recipe without doing its work: what `rammerge check` prints, on the page of a run."""

from typing import Any

from prefect import State, flow
from prefect.states import Completed, Failed

from flows.run import artifacts
from flows.run.checking import check as check_plan
from flows.run.given import GivenRecipe, read, run_name
from flows.run.planning import look_up
from rammerge.errors import RammergeError
from rammerge.system.redaction import redact, without_secrets
from tasks.runtime.environment import activate
from tasks.runtime.limits import FLOW_SECONDS
from tasks.runtime.models import ended_by_interrupt


@flow(name="check", flow_run_name=run_name, timeout_seconds=FLOW_SECONDS)
@ended_by_interrupt()
@without_secrets
def check(recipe: GivenRecipe) -> "State[Any]":
    """Check a recipe and everything that it names, and say what it will take. Nothing is fetched, merged or promoted.

    Args:
        recipe: by path, inline, by git reference (`git+https://HOST/REPOSITORY@COMMIT#path/to/recipe.yaml`), or by URL
            (`https://HOST/recipe.yaml#sha256=DIGEST`).
    """
    activate()
    try:
        spec = read(recipe)
        found = check_plan(look_up(spec, fetch=False))
    except RammergeError as error:
        sentence = redact(str(error))
        artifacts.publish_check(run_name(), [sentence])
        return Failed(message=sentence)
    lines = [*found, f"{spec.name}: ready to run"]
    artifacts.publish_check(spec.name, lines)
    return Completed(message="\n".join(lines))
