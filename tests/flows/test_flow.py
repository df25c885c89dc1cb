"""Contract: the pipeline ends with a registered and promoted model that loads.

A second run does nothing and says so. Each change redoes what depends on it and nothing else. What was lost or damaged
is made again.
"""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rammerge.errors import InputError
from tests.fixtures.models import save_agent
from tests.fixtures.pipeline import World
from tests.fixtures.telling import Told, telling

Steps = dict[str, list[str]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


pytestmark = [pytest.mark.long, pytest.mark.usefixtures("prefect_api")]


@pytest.fixture(scope="module", autouse=True)
def told(world: World) -> Iterator[Told]:
    """What the runs of this module tell the outside world."""
    with telling(world.root) as told:
        yield told


@pytest.fixture(autouse=True)
def environment(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Share one home among the tests of this module: each test starts where the test before it ended."""
    world.enter(monkeypatch)


def run(recipe: Path) -> tuple[Any, Steps]:
    """Run the flow; return its outcome or its error, and the steps' names by how they ended."""
    from flows.merge_and_evaluate import merge_and_evaluate
    from tasks.runtime.progress import Event, listening

    ended: Steps = defaultdict(list)

    def note(event: Event) -> None:
        if event.state != "running":
            ended[event.state].append(event.step)

    with listening(note):
        state = merge_and_evaluate(recipe, return_state=True)
    return state.result(raise_on_failure=False), {how: sorted(names) for how, names in ended.items()}


def noted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list which from now on gets the names of steps in the order in which they are submitted."""
    from tasks.runtime.runner import Workers

    submitted: list[str] = []
    submit = Workers.submit

    def note(self: Workers, task: Any, parameters: dict[str, Any], *rest: Any, **more: Any) -> Any:
        submitted.append(str(task.task_run_name).format(**parameters))
        return submit(self, task, parameters, *rest, **more)

    monkeypatch.setattr(Workers, "submit", note)
    return submitted


ALL = sorted(
    ["fetch base", "fetch tool", "fetch code", "preflight", "extract task vectors", "merge together", "compare", "gate"]
    + [
        f"{verb} {variant}"
        for verb in ("merge", "smoke", "evaluate")
        for variant in ("average", "ram", "ram_plus-paper")
    ]
    + [f"evaluate {model}" for model in ("base", "tool", "code")]
    + ["write the report", "record in MLflow", "register tiny", "promote tiny"]
)


def test_the_first_run_ends_with_a_champion_that_generates(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow.transformers

    from flows.run.planning import plan
    from tasks.records.registry import releases
    from tasks.runtime import progress

    monkeypatch.setattr(progress, "LONG_SECONDS", 0.0)
    submitted = noted(monkeypatch)
    outcome, steps = run(world.write())
    assert steps == {"done": ALL}
    begun = submitted.index("merge together")
    inputs = {"evaluate base", "evaluate tool", "evaluate code"}
    assert {*submitted[begun + 1 : begun + 4]} == inputs, "what waits for the merges keeps no thread from them"
    assert len(ALL) == plan(world.recipe).steps
    assert outcome.passed and outcome.registered == ("tiny", 1)
    (release,) = releases("tiny")
    assert release.aliases == ("champion",)
    assert release.tags["rammerge.variant"] == outcome.selected
    assert "rammerge.source.tool" in release.tags
    # By reference: the registered weights are the store's own file.
    assert (Path(release.path) / "model" / "model.safetensors").samefile(outcome.model / "model.safetensors")
    pipeline = mlflow.transformers.load_model("models:/tiny@champion")
    assert pipeline("abc")[0]["generated_text"].startswith("abc")


def test_the_run_is_on_record_in_mlflow() -> None:
    from tasks.records.connection import client

    mlflow = client()
    experiment = mlflow.get_experiment_by_name("tiny").experiment_id
    runs = {run.info.run_name: run for run in mlflow.search_runs([experiment])}
    assert set(runs) == {"tiny", "average", "ram", "ram_plus-paper"}
    parent = runs.pop("tiny")
    assert all(run.data.tags["mlflow.parentRunId"] == parent.info.run_id for run in runs.values())
    assert all(run.info.status == "FINISHED" for run in (parent, *runs.values()))
    assert runs["ram_plus-paper"].data.params["method.r"] == "0.1"
    assert 0 <= runs["ram"].data.metrics["test/words"] <= 1
    names = {file.path for file in mlflow.list_artifacts(parent.info.run_id)}
    assert {
        "recipe.yaml",
        "leaderboard.json",
        "leaderboard.md",
        "leaderboard.png",
        "decision.json",
        "overlap.json",
        "report.html",
        "report.json",
    } <= names
    assert [entry.dataset.name for entry in parent.inputs.dataset_inputs] == ["words"]


def test_the_run_is_told_to_collectors(told: Told) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    families = {family.name: family.samples for family in text_string_to_metric_families(told.metrics.read_text())}
    steps = {(s.labels["step"], s.labels["state"]): s.value for s in families["rammerge_steps"]}
    assert steps["merge", "done"] == 3 and steps["evaluate", "done"] == 6 and sum(steps.values()) == len(ALL)
    assert {sample.value for sample in families["rammerge_gate_passed"]} == {1.0}
    assert [sample.value for sample in families["rammerge_champion_version"]] == [1.0]
    assert families["rammerge_merged_bytes"][0].value > 0 and families["rammerge_evaluated_tokens"][0].value > 0
    scores = {(s.labels["role"], s.labels["bound"]): s.value for s in families["rammerge_score"]}
    assert scores["champion", "value"] == scores["challenger", "value"]  # the first run's challenger serves now

    lines = [line for line in told.lines if line["logger"] == "rammerge.runs"]
    assert sorted(line["message"] for line in lines[1:-1]) == [f"{step}: done" for step in ALL]
    assert {(line["recipe"], line["level"]) for line in lines} == {("tiny", "info")} and len(
        {line["run"] for line in lines}
    ) == 1
    (merged,) = (line for line in lines if line["message"] == "merge ram: done")
    assert (merged["step"], merged["model"]) == ("merge", "ram") and merged["seconds"] > 0

    spans = {span.name: span for span in told.spans if span.parent is not None}
    (whole,) = (span for span in told.spans if span.name == "tiny")
    assert spans.keys() >= set(ALL) and spans["merge ram"].parent is not None
    assert spans["merge ram"].parent.span_id == whole.context.span_id
    assert spans["merge ram"].attributes is not None and "rammerge.key" in spans["merge ram"].attributes


def test_the_trend_is_in_both_dashboards() -> None:
    from prefect.artifacts import Artifact

    from tasks.records.connection import client
    from tasks.records.trend import EXPERIMENT

    mlflow = client()
    (trend,) = mlflow.search_runs([mlflow.get_experiment_by_name(EXPERIMENT).experiment_id])
    (point,) = mlflow.get_metric_history(trend.info.run_id, "champion/value")
    assert point.step == 1 and 0 <= point.value <= 1
    shown: Any = Artifact.get("tiny-trend")
    assert f"/runs/{trend.info.run_id}" in str(shown.data)


def test_the_report_of_the_last_run_can_be_had_as_one_file(world: World, tmp_path: Path) -> None:
    def report(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "rammerge", "report", *arguments]
        return subprocess.run(
            command, env=os.environ | world.environment(), capture_output=True, text=True, check=False
        )

    page = tmp_path / "page.html"
    done = report(str(world.recipe), "--out", str(page))
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{page}\n", "")
    text = page.read_text("utf-8")
    assert "Against the base" in text and "model.layers" not in text and "average" in text
    (kept,) = report(str(world.recipe)).stdout.splitlines()
    assert Path(kept).read_text("utf-8") == text
    other = tmp_path / "other.yaml"
    other.write_text(
        world.recipe.read_text()
        .replace("name: tiny", "name: other")
        .replace("base: base", f"base: {world.root / 'base'}")
    )
    unknown = report(str(other))
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert f"run `rammerge run {other}` first" in unknown.stderr


def test_a_run_is_compared_with_another_by_recipe_name_or_id(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from evaluation.report.page import Page
    from flows.cli.comparing import compare
    from tasks.records.connection import client
    from tasks.records.found import find_page, read_page

    mlflow = client()
    tiny = mlflow.get_experiment_by_name("tiny").experiment_id
    (parent,) = mlflow.search_runs([tiny], "tags.mlflow.runName = 'tiny'")
    identity = parent.info.run_id
    compare(f"{identity}:ram", f"{world.recipe}:average", out=tmp_path / "page.html")
    said = " ".join(capsys.readouterr().out.split())
    assert f"average minus ram of tiny {identity[:8]}" in said
    assert "on test" not in said and "of 10" in said
    text = (tmp_path / "page.html").read_text("utf-8")
    assert f"against ram of tiny {identity[:8]}," in text and "Items that flipped" in text
    found = find_page("tiny")
    assert found is not None and isinstance(found[1], Page)
    assert sorted(found[1].board.names("agent")) == ["code", "tool"]
    with pytest.raises(InputError, match="the report of tiny was written by a different version of rammerge"):
        read_page({"title": "old"}, {}, "tiny")
    with pytest.raises(InputError, match="'nobody' is no recipe"):
        compare("nobody:ram", "tiny", out=None)
    with pytest.raises(InputError, match=r"no model 'rma' \(did you mean 'ram'\?\)"):
        compare("tiny:rma", "tiny", out=None)


def test_the_record_has_the_times_of_the_steps_and_leads_on(world: World) -> None:
    from tasks.records.connection import client

    mlflow = client()
    runs = {run.info.run_name: run for run in mlflow.search_runs([mlflow.get_experiment_by_name("tiny").experiment_id])}
    parent, ram = runs["tiny"], runs["ram"]
    assert {"seconds/extract", "seconds/compare", "seconds/gate", "tool/seconds/evaluate"} <= parent.data.metrics.keys()
    steps = [ram.data.metrics[f"seconds/{step}"] for step in ("merge", "smoke", "evaluate")]
    assert all(seconds > 0 for seconds in steps)
    assert (ram.info.end_time - ram.info.start_time) / 1000 == pytest.approx(sum(steps), abs=0.01)
    assert ram.info.start_time == parent.info.start_time
    assert parent.info.end_time - parent.info.start_time > max(run.info.end_time - run.info.start_time for run in [ram])
    assert parent.data.tags["mlflow.source.name"] == str(world.recipe)
    assert "/runs/flow-run/" in parent.data.tags["rammerge.prefect_run"]
    assert "[tiny version 1](#/models/tiny/versions/1" in parent.data.tags["mlflow.note.content"]


def test_prefect_has_the_artifacts() -> None:
    from prefect.artifacts import Artifact

    for key in ("tiny-overlap", "tiny-leaderboard", "tiny-scores", "tiny-variants", "tiny-gates", "tiny-release"):
        assert Artifact.get(key) is not None, key
    # What a step that takes longer shows while it runs; the test above made every step one.
    assert Artifact.get("progress-merge-together") is not None


def test_the_second_run_does_nothing_and_says_so(world: World) -> None:
    _, steps = run(world.recipe)
    assert steps == {"cached": ALL}


def test_what_is_done_already_needs_no_room(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(world.root)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    _, steps = run(world.recipe)
    assert steps == {"cached": ALL}
    from flows.run.checking import check
    from flows.run.planning import plan

    assert check(plan(world.recipe))[-1] == "merged already: every variant"
    error, steps = run(world.write(merges=["average", "ram", "ties"]))
    assert isinstance(error, InputError) and "the merge of 1 variant needs" in str(error)
    assert "done" not in steps, "the run ends before any work"


def test_another_gate_redoes_the_gate_and_what_follows(world: World) -> None:
    outcome, steps = run(world.write(gates=[{"rule": "min_score", "value": 1.0}]))
    assert steps["done"] == ["gate", "record in MLflow", "register tiny", "write the report"]
    assert not outcome.passed and "is not shown to reach 1 on average" in outcome.refusals[0]
    assert outcome.registered == ("tiny", 1), "the same content is registered once"


def test_what_was_recorded_is_not_recorded_twice_where_the_store_could_not_note_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.records import tracking
    from tasks.records.connection import client

    def full(*_: object) -> None:
        monkeypatch.undo()
        world.enter(monkeypatch)
        raise OSError(errno.ENOSPC, "No space left on device")

    def parents() -> int:
        mlflow = client()
        experiment = mlflow.get_experiment_by_name("tiny").experiment_id
        return len(mlflow.search_runs([experiment], "tags.`rammerge.pipeline` != ''"))

    before = parents()
    monkeypatch.setattr(tracking, "write_json", full)
    _, steps = run(world.write(gates=[{"rule": "min_score", "value": 0.0}]))
    assert "record in MLflow" in steps["done"], "it is tried again"
    assert parents() == before + 1


def test_a_lost_file_and_a_changed_one_are_made_again(world: World) -> None:
    run(world.write())
    merges = world.home / "store" / "merge"
    changed, lost = (entry / "model" / "model.safetensors" for entry in sorted(merges.glob("[!.]*"))[:2])
    before = changed.read_bytes()
    lost.unlink()
    replaced = bytearray(before)
    replaced[-1] ^= 1
    changed.unlink()  # a registered model may share the file
    changed.write_bytes(replaced)
    _, steps = run(world.recipe)
    assert steps["done"] == ["merge together"]
    assert changed.read_bytes() == before and lost.is_file()
    _, steps = run(world.recipe)
    assert steps == {"cached": ALL}
    shutil.rmtree(world.home / "store" / "smoke")
    _, steps = run(world.recipe)
    assert {step for step in steps["done"] if "smoke" in step} == {step for step in ALL if "smoke" in step}
    assert len(list((world.home / "store" / "smoke").glob("[!.]*"))) == 3


def test_what_another_release_wrote_is_made_again(world: World) -> None:
    entry = next((world.home / "store" / "smoke").glob("[!.]*"))
    text = '{"words": "as another release called it"}'
    (entry / "smoke.json").write_text(text)
    manifest = json.loads((entry / ".manifest").read_text())
    status = (entry / "smoke.json").stat()
    manifest["files"]["smoke.json"] = {
        "size": len(text),
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "status": [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino],
    }
    (entry / ".manifest").write_text(json.dumps(manifest))
    _, steps = run(world.recipe)
    assert len(steps["done"]) == 1 and steps["done"][0].startswith("smoke ")
    assert "text" in json.loads((entry / "smoke.json").read_text())


def test_a_changed_agent_redoes_what_depends_on_it(world: World) -> None:
    shutil.rmtree(world.agents["code"])
    save_agent(world.base, world.agents["code"] / "checkpoint-7", density=0.3, seed=7)
    outcome, steps = run(world.recipe)
    assert "agent 'code': its weights are those in checkpoint-7, the only weights there" in outcome.warnings
    untouched = {"fetch base", "fetch tool", "evaluate base", "evaluate tool"}
    assert untouched <= set(steps["cached"])
    assert {"fetch code", "extract task vectors", "merge ram", "evaluate code", "evaluate ram"} <= set(steps["done"])


def test_a_prefect_database_that_forgot_does_not_redo_the_work(world: World) -> None:
    from prefect.settings import PREFECT_LOCAL_STORAGE_PATH

    run(world.recipe)  # the test before changed the champion, which the gates have to know
    shutil.rmtree(PREFECT_LOCAL_STORAGE_PATH.value())
    _, steps = run(world.recipe)
    assert steps == {"cached": ALL}


def test_bad_input_ends_a_run_with_its_sentence_before_any_step(world: World) -> None:
    shutil.copytree(world.base, world.root / "twin")
    recipe = world.write(agents={"tool": "tool", "twin": "twin"})
    error, steps = run(recipe)
    assert isinstance(error, InputError) and "twin" in str(error) and "base" in str(error)
    assert not steps
