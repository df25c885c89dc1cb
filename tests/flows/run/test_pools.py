"""Contract of work pools in a recipe: a check refuses what cannot run there, and a run that asked a pool never hangs.

How a step ended there is how it ends here: bad input as bad input, and a dead process as another try. Prefect's server
is real, and the workers are played by the tests, which set the states of runs.
"""

import threading
from collections.abc import Callable, Iterator
from contextvars import copy_context
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect import State, flow, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed, Crashed, Failed

from flows.run import sending
from flows.run.planning import plan
from flows.run.pools import check_pools, require_server
from flows.run.sending import BAD_INPUT, FLOW, in_pools
from flows.step import step
from rammerge.errors import InputError, RammergeError
from rammerge.recipe import Compute
from tasks.runtime.elsewhere import Asked, whom_to_ask
from tasks.runtime.progress import running
from tests.fixtures.pipeline import World

pytestmark = pytest.mark.usefixtures("prefect_api")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture
def pool() -> str:
    """Return the name of a new pool without workers."""
    name = f"pool-{uuid4()}"
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=name, type="process"))
    return name


def deploy(pool: str, **settings: Any) -> UUID:
    with get_client(sync_client=True) as client:
        return client.create_deployment(client.create_flow_from_name(FLOW), pool, work_pool_name=pool, **settings)


def found(world: World, pool: str) -> list[str]:
    return list(check_pools(plan(world.write(compute={"workers": {"merge": pool}}))))


def test_a_check_refuses_a_pool_that_cannot_run_steps_and_warns_of_one_without_workers(world: World, pool: str) -> None:
    place = r"recipe\.yaml:\d+: compute\.workers\.merge: "
    with pytest.raises(InputError, match=f"{place}Prefect has no work pool '{pool}x' .did you mean '{pool}'"):
        found(world, f"{pool}x")
    with pytest.raises(InputError, match=f"{place}Prefect has no deployment 'step/{pool}', which runs steps"):
        found(world, pool)
    deploy(pool, job_variables={"env": {"RAMMERGE_HOME": "/other"}})
    with pytest.raises(InputError, match=f"{place}the deployment 'step/{pool}' works in the home /other, and"):
        found(world, pool)
    deploy(pool, job_variables={})
    assert found(world, pool) == [f"warning: no worker of the pool '{pool}' is online; a step waits 5m for one"]


def test_pools_take_a_server_and_no_cluster(world: World) -> None:
    recipe = plan(world.write(compute={"workers": {"evaluate": "gpu"}})).recipe
    require_server(recipe)
    with (
        temporary_settings({PREFECT_API_URL: None}),
        pytest.raises(InputError, match="no Prefect server is configured"),
    ):
        require_server(recipe)
    with pytest.raises(InputError, match="either a cluster as `runner`, or pools as `workers`"):
        plan(world.write(compute={"workers": {"evaluate": "gpu"}, "runner": "dask"}))


def test_a_step_travels_with_the_shared_store_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: dict[str, Any] = {}

    def note(_: str, parameters: dict[str, Any], **__: Any) -> None:
        sent.update(parameters)
        raise RammergeError("noted")

    monkeypatch.setattr(sending, "run_deployment", note)
    monkeypatch.setenv("RAMMERGE_SHARED_STORE", "/mnt/shared")
    with in_pools(Compute.model_validate({"workers": {"merge": "gpu"}})), pytest.raises(RammergeError, match="noted"):
        ask = whom_to_ask("merge")
        assert ask is not None
        ask(Asked("merge", "merge x", {}))
    assert sent["shared"] == "/mnt/shared" and sent.keys() == step.parameters.properties.keys()


def test_pools_do_not_change_what_a_recipe_is(world: World) -> None:
    assert plan(world.write(compute={"workers": {"merge": "gpu"}})).recipe.digest == plan(world.write()).recipe.digest


@pytest.fixture
def ended(pool: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[str]]]:
    """Return a function that asks the pool for a step whose runs end in states, and returns the names of all states."""
    monkeypatch.setattr(sending, "_POLL_SECONDS", 0.05)
    deployment, over = deploy(pool), threading.Event()

    def runs() -> list[Any]:
        with get_client(sync_client=True) as client:
            return client.read_flow_runs(deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment])))

    def play(states: list[State[Any]]) -> None:
        while states and not over.wait(0.05):
            for run in runs():
                if not run.state.is_final() and states:
                    with get_client(sync_client=True) as client:
                        client.set_flow_run_state(run.id, states.pop(0), force=True)

    def ask(*states: State[Any], wait: str = "5m") -> list[str]:
        @flow
        def asking() -> None:
            with in_pools(Compute.model_validate({"workers": {"merge": pool, "wait": wait}})), running("merge x"):
                ask = whom_to_ask("merge")
                assert ask is not None and whom_to_ask("evaluate") is None
                ask(Asked("merge", "merge x", {"directory": Path("/x")}))

        # In a copy of the context, which knows the server.
        worker = threading.Thread(target=copy_context().run, args=(play, list(states)))
        worker.start()
        try:
            asking()
        finally:
            over.set()
            worker.join()
        return sorted(run.state_name for run in runs())

    ask.runs = runs  # type: ignore[attr-defined]  # for the test of what is left of a run that nobody took
    yield ask
    over.set()


def test_a_step_whose_process_died_is_asked_for_again(ended: Callable[..., list[str]]) -> None:
    assert ended(Crashed(), Completed()) == ["Completed", "Crashed"]


def test_a_step_that_dies_each_time_is_given_up(ended: Callable[..., list[str]]) -> None:
    with pytest.raises(RammergeError, match=r"the step 'merge x' failed on the pool 'pool-.*': it died"):
        ended(*[Crashed(message="it died")] * 3)


@pytest.mark.parametrize(("name", "kind"), [(BAD_INPUT, InputError), ("Failed", RammergeError)])
def test_a_step_that_fails_is_not_tried_again(
    name: str, kind: type[RammergeError], ended: Callable[..., list[str]]
) -> None:
    with pytest.raises(RammergeError, match=r"failed on the pool 'pool-.*': no such device") as failed:
        ended(Failed(name=name, message="no such device"))
    assert type(failed.value) is kind


def test_a_step_that_no_worker_takes_is_given_up_and_cancelled(ended: Any) -> None:
    with pytest.raises(RammergeError, match=r"no worker of the pool .* gave the step 'merge x' a sign of life for 1s"):
        ended(wait="1s")
    assert [run.state_name for run in ended.runs()] == ["Cancelled"]
