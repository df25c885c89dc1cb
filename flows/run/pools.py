"""Check that the work pools that a recipe names can run its steps."""

from collections.abc import Iterator

from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL

from flows.run.planned import Plan
from flows.run.sending import FLOW, is_served
from rammerge.errors import InputError, closest
from rammerge.recipe import Recipe
from rammerge.system.home import home


def check_pools(plan: Plan) -> Iterator[str]:
    """Yield a warning for each pool without a worker.

    Raises:
        InputError: a pool or its deployment is missing, or cannot run steps of this home.
    """
    recipe, pools = plan.recipe, plan.recipe.compute.workers.named
    if not pools:
        return
    if plan.search and pools.get("merge") != pools.get("evaluate"):
        raise recipe.error(
            ("compute", "workers"), "a trial of a search merges and evaluates in one step; give both the same pool"
        )
    with get_client(sync_client=True) as client:
        for work, pool in pools.items():
            try:
                _require(client, pool)
            except InputError as error:
                raise recipe.error(("compute", "workers", work), str(error)) from None
        for pool in dict.fromkeys(pools.values()):
            if not is_served(client, pool):
                wait = recipe.compute.workers.wait
                yield f"warning: no worker of the pool '{pool}' is online; a step waits {wait} for one"


def require_server(recipe: Recipe) -> None:
    """Check that a recipe with pools runs on a server that may have them; InputError if it does not."""
    for work in recipe.compute.workers.named:
        if PREFECT_API_URL.value() is None:
            raise recipe.error(
                ("compute", "workers", work),
                "no Prefect server is configured; set PREFECT_API_URL to that of the pool's workers, or remove the key",
            )


def _require(client: SyncPrefectClient, pool: str) -> None:
    """Check that a pool and its deployment are there."""
    try:
        client.read_work_pool(pool)
    except ObjectNotFound:
        known = [each.name for each in client.read_work_pools()]
        raise InputError(
            f"Prefect has no work pool '{pool}'{closest(pool, known)}; create it with "
            f"`prefect work-pool create {pool} --type process`"
        ) from None
    try:
        found = client.read_deployment_by_name(f"{FLOW}/{pool}")
    except ObjectNotFound:
        raise InputError(
            f"Prefect has no deployment '{FLOW}/{pool}', which runs steps there; `prefect --no-prompt deploy --all` "
            "makes those of prefect.yaml"
        ) from None
    if found.work_pool_name != pool:
        raise InputError(f"the deployment '{FLOW}/{pool}' is of the pool '{found.work_pool_name}'; deploy it to {pool}")
    theirs = (found.job_variables or {}).get("env", {}).get("RAMMERGE_HOME")
    if theirs not in (None, str(home())):
        raise InputError(
            f"the deployment '{FLOW}/{pool}' works in the home {theirs}, and this run in {home()}; share one home"
        )
