"""Contract: a space is refused where a method would refuse its values, by one sentence at the place of the mistake.

What is tried first are the methods' own defaults and presets.
"""

from typing import Any

import pytest

from rammerge.recipe import Search
from tasks.search.space import Fixed, Space


def space(methods: dict[str, dict[str, Any]], **fixed: Any) -> Space:
    return Space(Search.model_validate({"methods": methods}).methods, Fixed(**fixed))


@pytest.mark.parametrize(
    ("methods", "place", "words"),
    [
        ({"ram_pluss": {}}, ("ram_pluss",), "unknown method 'ram_pluss' (did you mean 'ram_plus'?)"),
        ({"esm": {}}, ("esm",), "needs data: give a file of unlabeled prompts"),
        ({"ram_plus": {"alfa": [0, 1]}}, ("ram_plus", "alfa"), "no parameter 'alfa' (did you mean 'alpha'?)"),
        ({"ram_plus": {"r": [-1.0, 0.5]}}, ("ram_plus", "r"), "at least 0, not -1"),
        ({"ties": {"density": [0.05, 1.5]}}, ("ties", "density"), "at most 1, not 1.5"),
        ({"ram_plus": {"ulps": [1, 2.5]}}, ("ram_plus", "ulps"), "whole number"),
        ({"ram_plus": {"scope": [0, 1]}}, ("ram_plus", "scope"), "scope"),
        ({"ram_plus": {"scope": ["global", "tensors"]}}, ("ram_plus", "scope"), "did you mean 'tensor'?"),
        ({"ram_plus": {"r": {"low": 0, "high": 1, "when": {"scope": "tensor"}}}}, ("ram_plus", "r"), "`when` wants"),
    ],
)
def test_mistakes_are_found_where_they_are(
    methods: dict[str, dict[str, Any]], place: tuple[str, ...], words: str
) -> None:
    problem = space(methods).problem()
    assert problem is not None
    assert problem[0] == place and words in problem[1] and "\n" not in problem[1]


def test_defaults_and_presets_are_tried_first_as_far_as_they_are_in_the_space() -> None:
    found = list(
        space({"ram_plus": {"r": [0.06, 0.5], "alpha": [0.0, 4.0]}, "task_arithmetic": {"scale": [2, 3]}}).starts()
    )
    assert found == [("ram_plus", {"r": 0.1, "alpha": 2.0}), ("ram_plus", {"r": 0.2, "alpha": 1.0})]


def test_a_preset_that_means_something_else_in_the_space_is_no_start() -> None:
    # The preset `conservative` of RAM+ has alpha 1, which this space cannot say.
    starts = [values for _, values in space({"ram_plus": {"r": [0.0, 1.0], "epsilon": 1e-6}}).starts()]
    assert starts == [{"r": 0.1, "epsilon": 1e-6}]


@pytest.mark.parametrize(
    ("methods", "fixed", "place", "words"),
    [
        ({"ram": {"svc.alpha": [0, 1]}}, {}, ("ram", "svc.alpha"), "of a step that `then` does not have"),
        ({"ram": {"svc.alpha": [-1, 1]}}, {"then": ["svc"]}, ("ram", "svc.alpha"), "above 0"),
        ({"ram": {"svc.alfa": [0, 1]}}, {"then": ["svc"]}, ("ram", "svc.alfa"), "did you mean 'alpha'?"),
        ({"ram": {}, "iso_c": {}}, {"then": ["svc"]}, ("iso_c",), "no step may follow"),
        ({"ram": {}, "average": {}}, {"weights": {"tool": 0.5}}, ("average",), "takes no weights"),
        ({"ties": {}}, {"tensors": [{"match": "*", "params": {"r": 0.0}}]}, ("ties",), "has no parameter 'r'"),
    ],
)
def test_what_all_candidates_have_in_common_must_suit_each(
    methods: dict[str, dict[str, Any]], fixed: dict[str, Any], place: tuple[str, ...], words: str
) -> None:
    problem = space(methods, **fixed).problem()
    assert problem is not None
    assert problem[0] == place and words in problem[1]


def test_a_step_has_parameters_like_the_method() -> None:
    ranges = {"scale": [0.2, 1.2], "svc.alpha": {"low": 0.01, "high": 1.0, "when": {}}}
    found = space({"task_arithmetic": ranges}, weights={"tool": 0.5}, then=["svc"])
    assert found.problem() is None
    start = dict(found.starts())["task_arithmetic"]
    assert start.keys() == ranges.keys()
    settled = found.settle("task_arithmetic", {"scale": 0.3, "svc.alpha": 0.7})
    assert [step.to_json() for step in settled.then] == [{"svc": {"alpha": 0.7}}]
    assert (settled.params["scale"], settled.weights) == (0.3, {"tool": 0.5})
    assert not found.is_whole("task_arithmetic", "svc.alpha")
