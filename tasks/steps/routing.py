"""What all agents together score, from the scores that they have: a router over them, and the best of them by item."""

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

from evaluation.judging.routing import Agents, ByItem, by_domain, by_score, routed_results
from evaluation.suites import SPLITS, Split
from rammerge import store
from rammerge.recipe import ROUTER
from rammerge.system.atomic import write_json, write_text
from tasks.runtime.step import step
from tasks.steps.evaluating import Scores, write_scores

_SUITE_VERSION = 1
_FILE = "routing.json"

# Split -> suite -> item -> what an agent was asked and answered.
Samples = Mapping[Split, Mapping[str, Mapping[str, dict[str, Any]]]]


class Routing(Scores):
    """What all agents together score.

    Attributes:
        best: the agent that is asked, by the domain that a question is taken for; empty for the oracle.
        recognised: share of the test items that are taken for their own suite's domain.
    """

    best: dict[str, str]
    recognised: float

    @classmethod
    def read(cls, entry: store.Entry) -> Self:
        """Return the result that `route` wrote."""
        scores = Scores.read(entry).model_dump(include={"directories", "digests", "means"})
        routing = json.loads((entry.path / _FILE).read_text("utf-8"))
        return cls(path=entry.path, digest=entry.digest, **scores, **routing)

    @property
    def words(self) -> str:
        """How a question finds its agent."""
        if not self.best:
            return "asks the agent that scores best on each item: an upper bound for every router"
        asked = ", ".join(f"{domain} → {agent}" for domain, agent in self.best.items())
        return (
            f"asks the agent that was best on validation in the domain that a classifier takes a question for "
            f"({asked}; {self.recognised:.1%} of the test items are taken for their own suite)"
        )


@step("route", version=1, run_name="{name} over the agents", result=Routing)
def route(out: Path, name: Literal["router", "oracle"], agents: Mapping[str, Scores]) -> None:
    """Combine the agents' scores as the router, or as the oracle, chooses an agent for each item.

    Args:
        out: written: `scores.json`, which names the store's entries, one a suite, and `routing.json`: the agent by
            domain, and the share of test items that the router takes for their own domain.
        name: which of the two.
        agents: the agents' scores by name.
    """
    samples = {agent: _samples(scores) for agent, scores in agents.items()}
    results: Agents = {agent: scores.load() for agent, scores in agents.items()}
    routed = by_domain(results, _prompts(next(iter(samples.values())))) if name == ROUTER else by_score(results)
    combined = routed_results(results, routed)

    def write(directory: Path, suite: str) -> None:
        for split in SPLITS:
            lines = [
                json.dumps(samples[agent][split][suite][item] | {"agent": agent}, ensure_ascii=False)
                for item, agent in routed.agents[split][suite].items()
            ]
            write_text(directory / suite / f"{split}.jsonl", "".join(f"{line}\n" for line in lines))
            write_json(directory / suite / f"{split}.json", combined[suite][split].to_json())

    known = {"rule": name, "agents": [[agent, scores.identity] for agent, scores in agents.items()]}
    entries = {
        suite: store.materialise(
            "suite", store.key_of("routed", _SUITE_VERSION, {**known, "suite": suite}), partial(write, suite=suite)
        )
        for suite in combined
    }
    write_scores(out, entries)
    write_json(out / _FILE, {"best": dict(routed.best), "recognised": routed.recognised})


def _samples(scores: Scores) -> Samples:
    return {
        split: {
            suite: {sample["id"]: sample for sample in _lines(directory / f"{split}.jsonl")}
            for suite, directory in scores.directories.items()
        }
        for split in SPLITS
    }


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:  # splitlines() would also split at what JSON does not escape
        yield from map(json.loads, lines)


def _prompts(samples: Samples) -> ByItem:
    return {
        split: {
            suite: {item: str(sample["prompt"]) for item, sample in items.items()} for suite, items in by_suite.items()
        }
        for split, by_suite in samples.items()
    }
