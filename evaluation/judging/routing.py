"""What keeping all agents would score: a router over them, and the best agent for each item.

The router is in the spirit of LLM-Ens (arXiv 2505.15306): it takes a question for one of the domains, and asks the
agent that is best there. It is fitted on the validation split alone. Nothing is asked anew, because each agent's score
of each item is known.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from evaluation.results import SuiteResult
from evaluation.suites import SPLITS, Split

# Less than the usual 1, with which rare words would tell of the suite with the most of them.
_SMOOTHING = 0.1

# One model's results by suite and split, and by split what stands in their place: for each suite and item a value.
ModelResults = Mapping[str, Mapping[Split, SuiteResult]]
Agents = Mapping[str, ModelResults]
ByItem = Mapping[Split, Mapping[str, Mapping[str, str]]]


@dataclass(frozen=True)
class Routed:
    """Which agent answers each item.

    Attributes:
        agents: the agent by split, suite and item.
        best: the agent by the domain that a question is taken for, which is a suite; empty if no domain decides.
        recognised: share of the test items that are taken for their own suite's domain.
    """

    agents: ByItem
    best: Mapping[str, str]
    recognised: float


def by_domain(agents: Agents, prompts: ByItem) -> Routed:
    """Route each item by the domain that its prompt is taken for, to the agent that is best there on validation.

    The classifier is multinomial naive Bayes on words weighted by TF-IDF. Domains count alike, however many items they
    have.

    Args:
        agents: their results.
        prompts: the prompt of each item.
    """
    best = {suite: _best(agents, suite) for suite in prompts["validation"]}
    taken = _classify(prompts)
    right = [domain == suite for suite, items in taken["test"].items() for domain in items.values()]
    routed: ByItem = {
        split: {suite: {item: best[domain] for item, domain in items.items()} for suite, items in by_suite.items()}
        for split, by_suite in taken.items()
    }
    return Routed(routed, best, sum(right) / len(right))


def by_score(agents: Agents) -> Routed:
    """Route each item to the agent that scores best on it: no router can surpass that. The first of equals is taken."""
    first = next(iter(agents.values()))
    chosen: ByItem = {
        split: {
            suite: {
                item: max(agents, key=lambda name: agents[name][suite][split].scores[item])
                for item in by_split[split].scores
            }
            for suite, by_split in first.items()
        }
        for split in SPLITS
    }
    return Routed(chosen, {}, 1.0)


def routed_results(agents: Agents, routed: Routed) -> dict[str, dict[Split, SuiteResult]]:
    """Return what the agents that are asked score together, by suite and split.

    Time and tokens are the agents' own, each for its share of the items; the memory is that of all agents together.
    """
    return {
        suite: {
            split: _joined({name: agent[suite][split] for name, agent in agents.items()}, routed.agents[split][suite])
            for split in SPLITS
        }
        for suite in next(iter(agents.values()))
    }


def _best(agents: Agents, suite: str) -> str:
    # Rounding keeps the last bits of a sum from deciding what is a tie; then the first in the recipe is taken.
    return max(agents, key=lambda name: round(agents[name][suite]["validation"].mean, 12))


def _classify(prompts: ByItem) -> ByItem:
    """Return the suite that each item is taken for, by a classifier that has seen the validation split."""
    from sklearn.feature_extraction.text import TfidfVectorizer  # which takes a second to import
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.pipeline import make_pipeline

    suites = [suite for suite, items in prompts["validation"].items() for _ in items]
    texts = [text for items in prompts["validation"].values() for text in items.values()]
    words = TfidfVectorizer(token_pattern=r"\w+|[^\w\s]", sublinear_tf=True)
    classifier = make_pipeline(words, MultinomialNB(alpha=_SMOOTHING, fit_prior=False)).fit(texts, suites)
    return {
        split: {
            suite: dict(zip(items, map(str, classifier.predict(list(items.values()))), strict=True))
            for suite, items in prompts[split].items()
        }
        for split in SPLITS
    }


def _joined(results: Mapping[str, SuiteResult], chosen: Mapping[str, str]) -> SuiteResult:
    """Return the result of the agents that are chosen by item."""
    shares = {name: sum(agent == name for agent in chosen.values()) / len(chosen) for name in results}
    peaks = [result.peak_memory for result in results.values() if result.peak_memory is not None]
    tokens = [shares[name] * result.tokens for name, result in results.items() if result.tokens is not None]
    templates = {result.chat_template for result in results.values()}
    return replace(
        next(iter(results.values())),
        scores={item: results[agent].scores[item] for item, agent in chosen.items()},
        answers=_answers(results, chosen),
        seconds=math.fsum(shares[name] * result.seconds for name, result in results.items()),
        model_digest=None,
        chat_template=templates.pop() if len(templates) == 1 else None,
        tokens=round(math.fsum(tokens)) if len(tokens) == len(results) else None,
        peak_memory=sum(peaks) if len(peaks) == len(results) else None,
    )


def _answers(results: Mapping[str, SuiteResult], chosen: Mapping[str, str]) -> dict[str, Sequence[float]] | None:
    found = {}
    for item, agent in chosen.items():
        if (answers := results[agent].answers) is None:
            return None
        found[item] = answers[item]
    return found
