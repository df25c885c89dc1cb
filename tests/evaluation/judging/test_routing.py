"""Contract: keeping all agents is scored from what they answered already.

The router asks the agent that is best on validation in the domain that it takes a question for, having seen validation
items alone; the oracle's score of an item is the best of any agent, so no router is above it.
"""

from dataclasses import replace

import pytest

from evaluation.judging.routing import Agents, ByItem, by_domain, by_score, routed_results
from evaluation.suites import SPLITS
from tests.evaluation.boards import AGENTS, SUITES, all_results

WORDS = {"zoo_tool": "call the function with arguments", "zoo_code": "write a python program that prints"}


def agents() -> Agents:
    return {name: results for name, results in all_results().items() if name in AGENTS}


def prompts(results: Agents, words: dict[str, str] = WORDS) -> ByItem:
    """Return prompts that say which suite they are of, and a number of their own."""
    first = next(iter(results.values()))
    return {
        split: {
            suite: {item: f"{words[suite]} {number}" for number, item in enumerate(first[suite][split].scores)}
            for suite in SUITES
        }
        for split in SPLITS
    }


def test_each_domain_is_answered_by_the_agent_that_is_best_there() -> None:
    found = agents()
    routed = by_domain(found, prompts(found))
    assert routed.best == {"zoo_tool": "tool", "zoo_code": "code"} and routed.recognised == 1.0
    combined = routed_results(found, routed)
    for suite, agent in routed.best.items():
        for split in SPLITS:
            assert combined[suite][split].scores == found[agent][suite][split].scores


def test_a_question_that_sounds_like_another_domain_goes_to_that_domains_agent() -> None:
    found = agents()
    asked = prompts(found)
    test = {**asked["test"], "zoo_code": dict.fromkeys(asked["test"]["zoo_code"], WORDS["zoo_tool"])}
    routed = by_domain(found, {**asked, "test": test})
    assert set(routed.agents["test"]["zoo_code"].values()) == {"tool"}
    assert routed.recognised == 0.5


def test_nothing_of_the_test_split_is_learned() -> None:
    found = agents()
    swapped = {
        name: {suite: {**by_split, "test": by_split["validation"]} for suite, by_split in results.items()}
        for name, results in found.items()
    }
    assert by_domain(found, prompts(found)).best == by_domain(swapped, prompts(swapped)).best


def test_no_router_is_above_the_oracle() -> None:
    found = agents()
    best = routed_results(found, by_score(found))
    routed = routed_results(found, by_domain(found, prompts(found)))
    for suite in SUITES:
        for split in SPLITS:
            for item, score in best[suite][split].scores.items():
                assert score == max(found[name][suite][split].scores[item] for name in AGENTS)
                assert score >= routed[suite][split].scores[item]


def test_clusters_and_answers_are_kept_and_costs_are_shared() -> None:
    found = {
        name: {
            suite: {
                split: replace(
                    result,
                    clusters=dict.fromkeys(result.scores, "one"),
                    answers={item: [score, score] for item, score in result.scores.items()},
                    seconds=seconds,
                    tokens=100 * seconds,
                    peak_memory=1000,
                )
                for split, result in by_split.items()
            }
            for suite, by_split in results.items()
        }
        for (name, results), seconds in zip(agents().items(), (1, 3), strict=True)
    }
    combined = routed_results(found, by_domain(found, prompts(found)))
    tool, code = combined["zoo_tool"]["test"], combined["zoo_code"]["test"]
    assert tool.clusters == found["tool"]["zoo_tool"]["test"].clusters
    assert tool.answers == found["tool"]["zoo_tool"]["test"].answers
    assert (tool.seconds, code.seconds, tool.tokens, code.tokens) == (1.0, 3.0, 100, 300)
    assert tool.peak_memory == 2000, "all agents are held at once"


@pytest.mark.parametrize("words", [{"zoo_tool": "same", "zoo_code": "same"}, {"zoo_tool": "?", "zoo_code": "!"}])
def test_any_words_will_do(words: dict[str, str]) -> None:
    found = agents()
    routed = by_domain(found, prompts(found, words))
    assert set(routed.agents["test"]["zoo_tool"].values()) <= set(AGENTS)
