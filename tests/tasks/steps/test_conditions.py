"""Contract: scores are of one key only if the models were asked alike; a field that says nothing new changes no key."""

from typing import Any

import pytest

from evaluation.backends.greedy import ANSWERING
from rammerge.recipe import Recipe
from tasks.steps import conditions
from tasks.steps.conditions import Conditions


def asked(**evaluation: Any) -> dict[str, Any]:
    recipe = {"name": "r", "base": "base", "agents": {"agent": "agent"}, "merges": ["ram"]}
    return Conditions.of(Recipe.model_validate(recipe | {"evaluation": {"suites": ["words"], **evaluation}})).identity


def test_models_that_are_asked_in_a_new_way_are_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditions, "vllm_version", lambda: "0.1")
    before, served = asked(), asked(backend="vllm")
    monkeypatch.setattr(conditions, "ANSWERING", ANSWERING + 1)
    assert asked() != before
    assert asked(backend="vllm") == served, "vLLM decodes as its own version says"


def test_what_was_not_there_before_is_no_part_of_earlier_keys() -> None:
    assert set(asked()) == {"dtype", "batch_size", "device", "limit", "lm_eval", "transformers", "torch", "answering"}
