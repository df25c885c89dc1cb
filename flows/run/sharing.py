"""The shared store of a run: tried before the work, and the store here kept within its bound."""

from collections.abc import Iterator

from flows.run.outcome import Outcome
from flows.run.planned import Plan
from rammerge import store
from rammerge.errors import InputError
from rammerge.recipe import Recipe
from rammerge.system.sizes import parse_size


def require_shared(plan: Plan) -> Iterator[str]:
    """Yield what is known of the shared store, if there is one.

    Raises:
        InputError: it is not there, refuses the credentials, or cannot be written to as entries need it.
    """
    if (url := store.shared_url()) is None:
        return
    try:
        store.try_shared(url)
    except InputError as error:
        if plan.recipe.shared_store is None:  # the environment says it
            raise
        raise plan.recipe.error(("store", "shared"), str(error)) from error
    yield f"shared store: {url} answers, can be written to, and has conditional writes"


def bound_store(recipe: Recipe) -> None:
    """Drop copies of what the shared store has, if the recipe bounds the store here. What is in use stays."""
    if recipe.store.cache is not None and store.shared_url() is not None:
        store.trim(parse_size(recipe.store.cache), keep=Outcome.referenced())


def leave_store(recipe: Recipe) -> None:
    """Tell the shared store what this home uses of it, and bound the store here; for the end of a run."""
    if store.shared_url() is not None:
        store.note_uses(Outcome.referenced())
    bound_store(recipe)
