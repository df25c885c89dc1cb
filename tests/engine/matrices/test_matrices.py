"""Contract: a method on whole matrices merges a model in bounded memory to bytes that only inputs and settings decide.

They do not depend on threads, the memory limit, the sizes of shards and blocks, compiled code, or interruptions.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from rammerge.checkpoints.family import Family
from rammerge.engine import memory
from rammerge.engine.forecast import forecast
from rammerge.engine.matrices import view
from rammerge.engine.matrices.solving import solve_matrices
from rammerge.engine.matrices.updates import UPDATE, UpdateFile
from rammerge.engine.options import MergeOptions
from rammerge.engine.passes.statistics import Statistics
from rammerge.errors import InputError
from rammerge.publishing.making import merge_family
from rammerge.rules import resolve
from tests.engine.models import Models, merge, read, sparse_family, weight_bytes, write_family
from tests.rules.spectral import FORMULAS, tsv_m

# Wide, tall and square, of several blocks each; a vector, a number, and a stack of matrices.
SHAPES = {
    "wide.q_proj": (20, 70),
    "tall.q_proj": (90, 20),
    "square.q_proj": (30, 30),
    "bias": (30,),
    "one": (),
    "stack": (2, 5, 5),
}
OPTIONS = MergeOptions("float32", compile="never", threads=2)
METHOD = resolve("tsv_m")


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Models:
    monkeypatch.setattr(view, "BLOCK_ELEMENTS", 400)
    monkeypatch.setattr(view, "_LEAST_WIDTH", 16)
    base, agents = sparse_family(SHAPES, [1.0, 0.7, 1.0])
    agents[1] = {name: values.float() * 1.01 for name, values in agents[1].items()}
    return write_family(tmp_path, base, agents)


@pytest.mark.parametrize("method", FORMULAS)
def test_each_matrix_is_merged_by_the_formula_and_the_rest_by_the_mean(
    models: Models, tmp_path: Path, method: str
) -> None:
    merged = read(merge(*models, resolve(method, None, {"scale": 0.5}), tmp_path / "out", OPTIONS).path)
    before, agents = read(models[0].path), [read(agent.path) for agent in models[1].values()]
    for name, shape in SHAPES.items():
        deltas = [(agent[name].float() - before[name].float()).double() for agent in agents]
        is_matrix = name in ("wide.q_proj", "tall.q_proj", "square.q_proj")
        wanted = FORMULAS[method](deltas, scale=0.5) if is_matrix else 0.5 * torch.stack(deltas).mean(0)
        error = (merged[name].double() - before[name].double() - wanted).norm()
        rounding = 6e-8 * before[name].double().norm()
        assert merged[name].shape == torch.Size(shape)
        assert float(error) <= 1e-6 * float(wanted.norm()) + float(rounding), name


def test_weights_and_rules_for_tensors(models: Models, tmp_path: Path) -> None:
    rules = [{"match": "wide*", "use": "agent2"}, {"match": "bias", "use": "base"}]
    method = resolve("tsv_m", weights={"agent0": 0.5}, tensors=[*rules, {"match": "tall*", "params": {"scale": 0.25}}])
    base, agents = models
    merged = read(merge(base, agents, method, tmp_path / "out", OPTIONS).path)
    before, after = read(base.path), [read(agent.path) for agent in agents.values()]
    assert torch.equal(merged["wide.q_proj"], after[2]["wide.q_proj"].float())
    assert torch.equal(merged["bias"], before["bias"].float())
    for name, scale in (("tall.q_proj", 0.25), ("square.q_proj", 1.0)):
        deltas = [(agent[name].float() - before[name].float()).double() for agent in after]
        wanted = tsv_m([0.5 * deltas[0], *deltas[1:]], scale=scale)
        error = (merged[name].double() - before[name].double() - wanted).norm()
        assert float(error) <= 1e-6 * float(wanted.norm()) + 1e-7


def test_a_group_is_merged_as_its_mean(models: Models, tmp_path: Path) -> None:
    base, agents = models
    grouped = Family.open(base, agents, groups={"pair": ["agent0", "agent1"]})
    merged = read(merge_family(grouped, METHOD, tmp_path / "grouped", OPTIONS).path)
    first, second, third = (read(agent.path) for agent in agents.values())
    mean = {name: (first[name].float() + second[name].float()) / 2 for name in first}
    alone = write_family(tmp_path / "alone", read(base.path), [mean, third])
    for name, values in read(merge(*alone, METHOD, tmp_path / "expected", OPTIONS).path).items():
        torch.testing.assert_close(merged[name], values, rtol=0, atol=1e-6)


def content(models: Models, out: Path, **options: Any) -> dict[str, bytes]:
    settings = MergeOptions(**{"dtype": "bfloat16", "rounding": "stochastic", "compile": "never", **options})
    return weight_bytes(merge(*models, METHOD, out, settings).path)


@pytest.mark.usefixtures("compiled_here")
def test_threads_blocks_and_compiled_code(models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = content(models, tmp_path / "one", threads=1)
    assert content(models, tmp_path / "many", threads=4) == expected
    assert content(models, tmp_path / "compiled", compile="always") == expected
    monkeypatch.setattr(memory, "DEFAULT_BLOCK", memory.MIN_BLOCK)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert content(models, tmp_path / "two") == expected
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_what_an_interrupted_run_solved_is_taken_up(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = content(models, tmp_path / "expected", threads=1)
    finish = UpdateFile.finish
    finished: list[str] = []

    def interrupted(self: UpdateFile, name: str, *found: Any) -> None:
        if finished:
            raise KeyboardInterrupt
        finish(self, name, *found)
        finished.append(name)

    with monkeypatch.context() as patch:
        patch.setattr(UpdateFile, "finish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            content(models, tmp_path / "out", threads=1)
    again: list[str] = []

    def noted(self: UpdateFile, name: str, *found: Any) -> None:
        finish(self, name, *found)
        again.append(name)

    monkeypatch.setattr(UpdateFile, "finish", noted)
    assert content(models, tmp_path / "out", threads=1) == expected
    assert len(finished) == 1
    assert sorted(finished + again) == ["square.q_proj", "tall.q_proj", "wide.q_proj"]


def test_damaged_updates_are_solved_again(models: Models, tmp_path: Path) -> None:
    family, rule, none = Family.open(*models), METHOD.bind(models[1]), Statistics()
    solved = solve_matrices(family, rule, none, tmp_path / "updates", OPTIONS)
    info = solved.family.members[UPDATE].tensors["tall.q_proj"]
    whole = info.file.read_bytes()
    with info.file.open("r+b") as file:
        file.seek(info.offset + 8)
        file.write(b"\xff\xff")
    with (tmp_path / "updates" / "finished.jsonl").open("a", encoding="utf-8") as journal:
        journal.write('["wide.q_proj", "0')
    solve_matrices(family, rule, none, tmp_path / "updates", OPTIONS)
    assert info.file.read_bytes() == whole


def test_a_number_that_is_none_is_named(models: Models, tmp_path: Path) -> None:
    base, agents = models
    broken = read(agents["agent1"].path)
    broken["tall.q_proj"][3, 3] = float("nan")
    other = write_family(tmp_path / "broken", read(base.path), [read(agents["agent0"].path), broken])
    with pytest.raises(InputError, match=r"agent 'agent1' has a NaN or an infinity in 'tall.q_proj'"):
        merge(*other, METHOD, tmp_path / "out", OPTIONS)


def test_too_little_memory_is_refused_by_name(tmp_path: Path) -> None:
    models = write_family(tmp_path, *sparse_family({"small": (10, 10), "large": (900, 1000)}, [0.5, 0.5]))
    family = Family.open(*models)
    rule = METHOD.bind(family.agents)
    with pytest.raises(
        InputError, match=r"--memory 1MiB is too little: for 'large' \(900 x 1000\) .* needs \d+MiB"
    ) as no:
        forecast(family, rule, MergeOptions(memory=1 << 20))
    enough = int(str(no.value).split("needs ")[1].split("MiB")[0])
    assert forecast(family, rule, MergeOptions(memory=(enough + 16) << 20)).memory <= (enough + 16) << 20


MERGE = """
import json, os, sys
from pathlib import Path
from rammerge.checkpoints.family import Family
from rammerge.engine.forecast import forecast
from rammerge.engine.options import MergeOptions
from rammerge.publishing.making import merge_family
from rammerge.rules import resolve
root, method = Path(sys.argv[1]), resolve(sys.argv[2])
family = Family.open(root / "base", {name: root / name for name in ("agent0", "agent1", "agent2")})
options = MergeOptions("bfloat16", compile="never", threads=1)
expected = forecast(family, method.bind(family.agents), options).memory
merge_family(family, method, root / "out", options)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([expected, int(peak.split()[1]) * 1024]))
"""


@pytest.mark.parametrize("method", ["tsv_m", "wudi"])
def test_the_forecast_holds(tmp_path: Path, method: str) -> None:
    write_family(tmp_path, *sparse_family({"w": (800, 1000)}, [0.5, 0.5, 0.5]))
    process = subprocess.run(
        [sys.executable, "-c", MERGE, str(tmp_path), method],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    expected, peak = json.loads(process.stdout)
    assert abs(peak - expected) <= 0.2 * expected, (expected >> 20, peak >> 20)
