"""Contract: a run closes the runs of its home that died without a word, in Prefect and in MLflow, and no living one."""

from pathlib import Path
from uuid import UUID

import pytest
from prefect import flow, get_client
from prefect.states import Running

from flows.run.alive import alive
from rammerge.system.locks import locked
from tasks.records import pages
from tasks.records.connection import client
from tasks.records.log import TAG_PREFECT_RUN
from tasks.runtime.environment import activate

pytestmark = pytest.mark.usefixtures("prefect_api")


@flow
def some_run() -> None:
    return None


@flow
def later(place: Path) -> list[str]:
    with alive():
        return sorted(file.name for file in place.iterdir())


def begin(place: Path) -> tuple[UUID, str]:
    """Leave what a run leaves that is killed while it writes its records; return its ids in Prefect and MLflow."""
    with get_client(sync_client=True) as prefect:
        run = prefect.create_flow_run(some_run, state=Running()).id
    place.mkdir(parents=True, exist_ok=True)
    (place / str(run)).touch()
    tags = {TAG_PREFECT_RUN: pages.flow_run_page(str(run))}
    return run, client().create_run("0", tags=tags).info.run_id


def states(run: UUID, recorded: str) -> tuple[str, str]:
    with get_client(sync_client=True) as prefect:
        state = prefect.read_flow_run(run).state
    assert state is not None and state.name is not None
    return state.name, client().get_run(recorded).info.status


def test_the_next_run_closes_what_died_and_leaves_what_lives(
    rammerge_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{rammerge_home / 'mlflow' / 'mlflow.db'}")
    activate()
    place = rammerge_home / "runs" / "alive"
    dead, living = begin(place), begin(place)

    with locked(place / str(living[0])):
        during = later(place)
    assert states(*dead) == ("Crashed", "KILLED")
    assert states(*living) == ("Running", "RUNNING")
    assert len(during) == 2 and str(living[0]) in during, "its own and the living one's"
    assert not (place / str(dead[0])).exists()
    assert len(later(place)) == 1
    assert states(*living) == ("Crashed", "KILLED"), "once its lock is free"


def test_the_next_run_closes_one_whose_end_prefect_was_not_told_of(rammerge_home: Path) -> None:
    place = rammerge_home / "runs" / "alive"
    (run,) = later(place)
    with get_client(sync_client=True) as prefect:  # as if it had been down when the run ended
        prefect.set_flow_run_state(UUID(run), Running(), force=True)
    assert run not in later(place)
    with get_client(sync_client=True) as prefect:
        state = prefect.read_flow_run(UUID(run)).state
    assert state is not None and state.name == "Crashed"
