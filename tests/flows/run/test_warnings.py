"""Contract: what a recipe's words and its models' headers say against a variant is told before any work."""

from pathlib import Path
from typing import Any

import pytest

from flows.run.planning import plan
from rammerge.errors import InputError
from rammerge.overlap import Gram, Overlap
from rammerge.rules import resolve
from rammerge.system.atomic import write_json
from tasks.steps.overlap import OverlapResult
from tests.engine.models import measure_overlap, sparse_family, write_family
from tests.fixtures.pipeline import World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path / "world")
    monkeypatch.setenv("RAMMERGE_HOME", str(world.home))
    return world


def test_a_sweep_that_the_next_step_undoes_is_told_once(world: World) -> None:
    sweep = {"method": "task_arithmetic", "sweep": {"scale": [0.3, 0.5, 1.0]}}
    assert plan(world.write(merges=[sweep], gates=[])).warnings == []
    (sentence,) = plan(world.write(merges=[{**sweep, "then": [{"svc": {"alpha": 0.1}}]}], gates=[])).warnings
    assert "takes the scale of matrices back" in sentence


@pytest.fixture(scope="module")
def overlap(tmp_path_factory: pytest.TempPathFactory) -> Overlap:
    """The overlap of two agents that have nothing in common."""
    models = write_family(tmp_path_factory.mktemp("models"), *sparse_family({"w": (64, 64)}, [0.3, 0.3]))
    return measure_overlap(*models)


def test_the_overlap_record_says_which_variants_it_is_against(world: World, overlap: Overlap, tmp_path: Path) -> None:
    write_json(tmp_path / "overlap.json", overlap.to_json())
    result = OverlapResult(path=tmp_path, digest="", summary={}, warnings=[])
    methods = [
        "average",
        "model_stock",
        {"method": "model_stock", "params": {"scale": 0.5}, "name": "half"},
        "resmerge",
    ]
    stock, resmerge = result.against(plan(world.write(merges=methods, gates=[])).variants)
    assert stock.startswith("model_stock, half: the task vectors are nearly orthogonal (mean cosine")
    assert resmerge.startswith("resmerge: the task vectors are nearly orthogonal (coherence 0.7")


def test_weights_need_a_record_of_their_own(overlap: Overlap) -> None:
    rule = resolve("model_stock", weights={"agent0": 0.5}).bind(overlap.agents)
    assert rule.forewarnings(overlap) == []


def test_agents_with_something_in_common_are_no_edge_of_resmerge(overlap: Overlap) -> None:
    together = Gram(overlap.agents, {"w": [1.0, 0.5, 1.0]})
    assert resolve("resmerge").method.forewarns(together) == []
    assert resolve("karcher").method.forewarns(overlap.gram or together) == []


def test_ranges_that_the_next_step_undoes_are_told_of_a_search(world: World) -> None:
    search = {"search": {"methods": {"task_arithmetic": {"scale": [0.3, 1.0], "svc.alpha": [0.1, 1.0]}}}}
    (sentence,) = plan(world.write(merges=[{**search, "then": ["svc"]}], gates=[])).warnings
    assert "takes the scale of matrices back" in sentence


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"weights": {"tol": 0.5}}, "the weight of 'tol' belongs to no agent (did you mean 'tool'?)"),
        ({"prompts": "none.txt"}, "prompts: "),
        ({"tensors": [{"match": "*", "use": "toll"}]}, "did you mean 'tool'?"),
    ],
)
def test_what_all_candidates_have_in_common_is_checked(world: World, given: dict[str, Any], words: str) -> None:
    search = {"search": {"methods": {"task_arithmetic": {"scale": [0.3, 1.0]}}}}
    with pytest.raises(InputError) as raised:
        plan(world.write(merges=[{**search, **given}], gates=[]))
    assert words in str(raised.value) and str(raised.value).count("recipe.yaml") == 1
