"""Contract of runs on Dask and Ray, here clusters of two processes: a merge in parts has the bytes of one process.

A worker that is killed amid a part takes no shard with it that was finished, and no part that others counted. What
workers do is seen in the run's process.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from prefect import flow

from flows.run.parts import count_parts, merge_parts
from flows.run.planning import plan
from flows.run.settling import results, settle
from rammerge.checkpoints.family import Family
from rammerge.publishing.making import merge_family
from rammerge.system.home import home
from tasks.runtime.cluster import steps_on
from tasks.runtime.environment import RUNNER
from tasks.runtime.progress import Event, listening
from tasks.runtime.runner import workers
from tasks.steps.computing import merge_options
from tasks.steps.merging import merge
from tasks.steps.overlap import extract
from tasks.steps.sources import fetch, preflight
from tests.engine.models import sparse_family, weight_bytes, write_family
from tests.evaluation.made import write_suite

pytestmark = [pytest.mark.servers, pytest.mark.usefixtures("prefect_api")]

SHAPES = {f"layer.{index}.weight": (60, 50) for index in range(8)}
# A method that waits until the run has heard of it, and then kills its process once, when a shard is finished.
MORTAL = """
import json, os, signal, time
from pathlib import Path
from rammerge import Method, Params, Update

HERE = Path(__file__).parent

def wait(condition):
    until = time.monotonic() + 1800  # only a guard against hanging
    while not condition() and time.monotonic() < until:
        time.sleep(0.05)

def shards():
    return list(Path(os.environ["RAMMERGE_HOME"]).glob("store/merge_part/.staging/*/*/records/*.json"))

def kill_once():
    wait((HERE / "heard").exists)
    if not (HERE / "called").exists():
        (HERE / "called").touch()
        return
    wait(shards)
    try:
        (HERE / "armed-for-merging").unlink()
    except FileNotFoundError:
        return
    times = {f"{path.parents[1].name}/{path.name}": path.stat().st_mtime_ns for path in shards()}
    (HERE / "killed.json").write_text(json.dumps(times))
    os.kill(os.getpid(), signal.SIGKILL)

def kernel(block):
    if (HERE / "armed-for-merging").exists():
        kill_once()
    return Update(sum(block.deltas) * block.coefficients[0, 0])

METHOD = Method(name="mortal", summary="-", source="-", params=Params, kernel=kernel,
                coefficients=lambda params, statistics, tensor, agents: [[0.5] * agents])
"""

# A method that ranks magnitudes, and kills the process that begins first once the other one has counted its part.
COUNTING = """
import os, signal, time
from pathlib import Path
from rammerge import Method, Params, Update
from rammerge.engine.passes.magnitudes import KeptMagnitudes

HERE = Path(__file__).parent

def ranked(block):
    try:
        (HERE / "armed-for-counting").unlink()
    except FileNotFoundError:
        return block.deltas
    until = time.monotonic() + 60
    while not (found := counted()) and time.monotonic() < until:
        time.sleep(0.05)
    (HERE / "killed.txt").write_text("\\n".join(map(str, found)))
    os.kill(os.getpid(), signal.SIGKILL)

def counted():
    return list(Path(os.environ["RAMMERGE_HOME"]).glob("store/statistics_part/[0-9a-f]*/counted.json"))

def passes(params, agents):
    return [KeptMagnitudes(ranked, ((0.0,) * agents,), 0.5, by_tensor=False)]

METHOD = Method(name="counting", summary="-", source="-", params=Params, passes=passes,
                kernel=lambda block: Update(sum(block.deltas) * block.coefficients[0, 0]),
                coefficients=lambda params, known, tensor, agents: [known[passes(params, agents)[0]][None]])
"""


@pytest.fixture(params=["dask", "ray"])
def runner(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    pytest.importorskip(f"prefect_{request.param}", reason=f"the extra '{request.param}' is not installed")
    monkeypatch.setenv(RUNNER, request.param)
    return str(request.param)


def write_recipe(root: Path, codes: Mapping[str, str]) -> Path:
    """Write a recipe over three agents, of which each tensor is a shard, and over a method in each of some modules."""
    write_family(root, *sparse_family(SHAPES, [0.3, 0.4, 0.2]))
    write_suite(root / "words", sizes=(1, 1))
    for module, code in codes.items():
        (root / f"{module}.py").write_text(code)
    content = {
        "name": "tiny",
        "base": "base",
        "agents": {f"agent{index}": f"agent{index}" for index in range(3)},
        "merges": [{"method": f"{module}:METHOD", "name": module} for module in codes],
        "trust": list(codes),
        "evaluation": {"suites": ["./words"]},  # which chooses one of several variants; here nothing is scored
        "output": {"dtype": "bfloat16", "shard_size": "7KB"},
        "compute": {"parts": 2},
    }
    (root / "recipe.yaml").write_text(yaml.safe_dump(content))
    return root / "recipe.yaml"


@flow(task_runner=workers())
def merging(recipe: Path) -> dict[str, Path]:
    """Merge as the pipeline does, up to the finished models."""
    todo = plan(recipe)
    spec = todo.recipe
    with steps_on(spec.compute):
        base = fetch.submit("base", todo.base)
        agents = {name: fetch.submit(name, origin, base) for name, origin in todo.agents.items()}
        checked = preflight.submit(base, agents, todo.groups, spec.output, {})
        sources = results({"base": base, **agents})
        counted = count_parts(todo, sources, checked)
        overlap = extract.submit(base, agents, todo.groups, spec.output.resize, spec.compute, checked, counted)
        settle(*counted, overlap)
        parts = merge_parts(todo, sources, overlap.result(), list(todo.variants))
        merged = {
            name: merge.submit(
                name, base, agents, todo.groups, method, spec.output, spec.compute, overlap, parts=parts.merged
            )
            for name, method in todo.variants.items()
        }
        settle(*merged.values())
        return {name: Path(model.result().path) for name, model in merged.items()}


def weights_of_one_process(recipe: Path, out: Path) -> dict[str, dict[str, bytes]]:
    """Merge with the library alone, and return the weights of each variant."""
    todo = plan(recipe)
    family = Family.open(todo.base.source, {name: origin.source for name, origin in todo.agents.items()})
    for name, method in todo.variants.items():
        merge_family(family, method.resolved(), out / name, merge_options(todo.recipe.output, todo.recipe.compute))
    return {name: weights(out / name) for name in todo.variants}


def weights(model: Path) -> dict[str, bytes]:
    return {name: content for name, content in weight_bytes(model).items() if name.endswith(".safetensors")}


def test_two_workers_make_the_bytes_of_one_process_also_when_one_is_killed(runner: str, tmp_path: Path) -> None:
    """One is killed while it counts, and another while it merges."""
    # Modules of their own for each cluster, because this process imports them by their names.
    mortal, counting = f"mortal_on_{runner}", f"counting_on_{runner}"
    recipe = write_recipe(tmp_path, {mortal: MORTAL, counting: COUNTING})
    expected = weights_of_one_process(recipe, tmp_path / "out")
    for work in ("counting", "merging"):
        (tmp_path / f"armed-for-{work}").touch()
    ended: list[str] = []

    def listener(event: Event) -> None:
        if event.state == "done":
            ended.append(event.step)
        if event.step.startswith("merge part") and event.state == "running":
            (tmp_path / "heard").touch()  # until then no worker merges anything

    with listening(listener):
        merged = merging(recipe)
    assert {name: weights(model) for name, model in merged.items()} == expected
    assert all(len(files) == len(SHAPES) for files in expected.values())

    (counted,) = map(Path, (tmp_path / "killed.txt").read_text().splitlines())
    assert counted.stat().st_mtime_ns < (tmp_path / "killed.txt").stat().st_mtime_ns, "it was counted once"
    finished = json.loads((tmp_path / "killed.json").read_text())
    records = {
        f"{path.parents[1].name}/{path.name}": path
        for path in (home() / "store" / "merge_part").glob("*/*/records/*.json")
    }
    assert finished and all(records[name].stat().st_mtime_ns == time for name, time in finished.items())
    fetched = [f"fetch {name}" for name in ("base", "agent0", "agent1", "agent2")]
    parts = ["overlap part 1 of 2", "overlap part 2 of 2", *(f"merge part {number} of 2" for number in range(3))]
    counts = [f"statistics part {number} of 2, round {turn}" for turn in (1, 2) for number in (1, 2)]
    last = [f"merge {mortal}", f"merge {counting}"]
    assert sorted(ended) == sorted([*fetched, "preflight", "extract task vectors", *parts, *counts, *last])
