"""Contract of two pools: a run on the pool `cpu` has its merges and models run on the pool `gpu`.

A step whose process is killed is run again. A run without workers for its steps fails with a sentence. A cancelled run
ends its steps. And a recipe is given in Prefect's form, or checked there.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fixtures.browser import Browser
from tests.fixtures.pipeline import World
from tests.servers.site.conftest import Site, wait
from tests.servers.site.test_runs import METHOD, locks_held, logged_in, processes_of

pytestmark = [pytest.mark.servers, pytest.mark.long]

RUN, CHECK = "merge-and-evaluate/run", "check/check"
BOTH = {"merge": "gpu", "evaluate": "gpu"}
# Each step on the other pool is a process that takes seconds to start, so there are few.
VARIANT = "task_arithmetic-scale0.37"  # which no other test has put into the store
HELD = "held"
UNEVALUATED: dict[str, Any] = {
    "merges": [{"method": "task_arithmetic", "params": {"scale": 0.37}}],
    "evaluation": "none",
    "gates": None,
}


@pytest.fixture
def away(tmp_path: Path) -> World:
    """Return a world whose recipe gives its merges and models to the pool `gpu`."""
    world = World(tmp_path)
    world.write(name="away", compute={"workers": BOTH}, **UNEVALUATED)
    return world


@pytest.fixture
def held(away: World) -> Iterator[World]:
    """Return a world whose merge, on the pool `gpu`, lasts as long as the file `hold` beside its recipe is there."""
    (away.root / "waiting.py").write_text(f"{METHOD}\n# a merge of its own for {away.root.name}\n")
    (away.root / "hold").touch()
    away.write(
        name="held",
        merges=[{"method": "waiting:HELD", "name": HELD}],
        trust=["waiting"],
        evaluation="none",
        gates=None,
        compute={"workers": BOTH},
    )
    yield away
    (away.root / "hold").unlink(missing_ok=True)


def steps_of(site: Site, run: str) -> list[dict[str, Any]]:
    """Return the runs that did steps of a run."""
    asked = {"flow_runs": {"parent_flow_run_id": {"any_": [run]}}, "sort": "START_TIME_ASC"}
    return list(site.ask("/flow_runs/filter", asked))


def merging(site: Site, world: World, run: str) -> str:
    """Wait until a run's merge is held, and return the run that does that step."""
    wait((world.root / "merging").exists, "the merge")
    (step,) = (each for each in steps_of(site, run) if each["state_type"] == "RUNNING")
    return str(step["id"])


def test_merges_and_models_run_on_the_other_pool_again_if_their_process_is_killed(site: Site, held: World) -> None:
    run = site.start(RUN, recipe=str(held.recipe))
    step = merging(site, held, run)
    for process in processes_of(step):
        os.kill(int(process), signal.SIGKILL)
    (held.root / "hold").unlink()
    state = site.end(run)
    assert (state["type"], state["name"]) == ("COMPLETED", "Completed"), state["message"]
    steps = steps_of(site, run)
    assert {step["work_pool_name"] for step in steps} == {"gpu"}
    ended = [(each["name"], each["state_type"]) for each in steps]
    assert ended[-3:] == [(f"merge {HELD}", "CRASHED"), (f"merge {HELD}", "COMPLETED"), (f"smoke {HELD}", "COMPLETED")]
    again = site.start(RUN, recipe=str(held.recipe))
    assert site.end(again)["type"] == "COMPLETED"
    assert steps_of(site, again) == [], "the store has everything"


def test_a_cancelled_run_ends_its_steps(site: Site, held: World) -> None:
    run = site.start(RUN, recipe=str(held.recipe))
    step = merging(site, held, run)
    site.ask(f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
    assert site.end(run)["type"] == "CANCELLED"
    assert site.end(step)["type"] == "CANCELLED"
    wait(lambda: not processes_of(step), "the end of the step's process")
    assert not locks_held(site.home)


def test_a_run_whose_pool_has_no_worker_ends_with_a_sentence(site: Site, away: World) -> None:
    site.ask("/work_pools/", {"name": "idle", "type": "process"})
    step = site.ask("/deployments/name/step/gpu")
    kept = ("flow_id", "path", "entrypoint", "pull_steps", "parameter_openapi_schema", "enforce_parameter_schema")
    site.ask("/deployments/", {"name": "idle", "work_pool_name": "idle"} | {key: step[key] for key in kept})
    merges = {"merges": [{"method": "task_arithmetic", "params": {"scale": 0.38}}]}
    away.write(name="idle", compute={"workers": {"merge": "idle", "wait": "1s"}}, **{**UNEVALUATED, **merges})
    state = site.end(site.start(RUN, recipe=str(away.recipe)))
    assert state["type"] == "FAILED"
    assert "no worker of the pool 'idle' gave the step" in state["message"]


def inline(world: World) -> dict[str, Any]:
    """Return a world's recipe as a form sends it, with absolute paths."""
    content = yaml.safe_load(world.recipe.read_text())
    content["base"] = str(world.base)
    content["agents"] = {name: str(path) for name, path in world.agents.items()}
    return dict(content)


def test_a_check_says_what_it_found_in_its_state_and_in_an_artifact(site: Site, away: World) -> None:
    recipe = inline(away)
    fine = site.end(site.start(CHECK, recipe=recipe))
    assert fine["type"] == "COMPLETED", fine["message"]
    assert f"1 variant: {VARIANT}" in fine["message"] and fine["message"].endswith("away: ready to run")
    recipe["compute"]["workers"]["merge"] = "gpus"
    refused = site.end(site.start(CHECK, recipe=recipe))
    sentence = "compute.workers.merge: Prefect has no work pool 'gpus' (did you mean 'gpu'?)"
    assert refused["type"] == "FAILED" and sentence in refused["message"]
    asked = {"artifacts": {"key": {"any_": ["away-check"]}}, "sort": "UPDATED_DESC"}
    latest, before = (each["data"] for each in site.ask("/artifacts/filter", asked))
    assert sentence in latest and "ready to run" in before


def test_the_form_offers_four_ways_to_give_a_recipe(browser: Browser, site: Site, tmp_path: Path) -> None:
    from selenium.webdriver.common.by import By

    logged_in(browser, site.prefect)
    deployment = site.ask(f"/deployments/name/{CHECK}")["id"]
    page = f"{site.prefect}/deployments/deployment/{deployment}/run"
    browser.show(page, "By path", "Inline", "By git reference", "By URL")
    browser.driver.find_elements(By.XPATH, "//*[normalize-space(.)='Inline']")[-1].click()
    browser.wait_for("The model that every agent was trained from.", "How models are evaluated")
    browser.screenshot(tmp_path / "form.png")
    schema = site.ask(f"/deployments/{deployment}")["parameter_openapi_schema"]
    methods = schema["definitions"]["InlineMerge"]["properties"]["method"]["enum"]
    assert {"average", "ram", "ties"} <= set(methods)
