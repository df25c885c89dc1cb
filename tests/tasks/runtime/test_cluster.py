"""Contract: a cluster that cannot be used is found before any work, in one sentence; steps are sent by their names.

Clusters themselves are in tests/servers.
"""

import pickle
import socket
import sys
from types import SimpleNamespace

import cloudpickle
import pytest
from prefect.context import FlowRunContext

from rammerge import store
from rammerge.errors import InputError
from rammerge.recipe import Compute
from tasks.runtime import away
from tasks.runtime.away import StandIn, follow_run
from tasks.runtime.cluster import chosen, require_cluster
from tasks.runtime.environment import RUNNER
from tasks.steps.merging import merge


def test_a_step_is_taken_from_its_module() -> None:
    assert cloudpickle.loads(cloudpickle.dumps(merge)) is merge
    task = cloudpickle.loads(cloudpickle.dumps(merge.task))
    assert task.fn.step is merge
    assert pickle.loads(pickle.dumps(merge.key)) == merge.key


def test_a_worker_follows_the_run_that_sends_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = cloudpickle.loads(cloudpickle.dumps(StandIn("nightly", 60, "/mnt/shared")))
    assert (sent.name, sent.timeout_seconds) == ("nightly", 60)
    limits: list[float] = []
    monkeypatch.setattr(away, "limit_steps_to", limits.append)
    for detached, shared in ((False, None), (True, "/mnt/shared")):
        context = SimpleNamespace(detached=detached, flow=sent, flow_run=None)
        monkeypatch.setattr(FlowRunContext, "get", lambda context=context: context)
        follow_run()
        assert store.shared_url() == shared and limits == [60] * detached
    store.share(None)


def test_the_variable_wins_over_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(Compute(runner="ray")) == "ray"
    monkeypatch.setenv(RUNNER, "threads")
    assert chosen(Compute(runner="ray")) == "threads"
    monkeypatch.setenv(RUNNER, "spark")
    with pytest.raises(InputError, match="runner 'spark' is unknown; use threads, dask"):
        chosen(Compute())


@pytest.mark.parametrize("kind", ["dask", "ray"])
def test_a_package_that_is_missing_is_named_with_the_command(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, f"prefect_{kind}", None)
    with pytest.raises(InputError, match=rf"prefect-{kind}.*pip install 'rammerge\[{kind}\]'"):
        require_cluster(Compute(runner=kind))


def test_a_scheduler_that_is_away_is_one_sentence() -> None:
    pytest.importorskip("prefect_dask", reason="the extra 'dask' is not installed")
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # nobody listens
        with pytest.raises(InputError, match=r"no cluster answers at dask://127\.0\.0\.1:\d+ .*start it"):
            require_cluster(Compute(runner=f"dask://127.0.0.1:{held.getsockname()[1]}"))
