"""The report of a run: one HTML page with the verdict, the evidence and the provenance."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from evaluation.judging.leaderboard import Leaderboard
from evaluation.report.page import (
    AgentChange,
    Cost,
    Flip,
    Page,
    VariantFacts,
    build_atlas,
    find_flips,
    read_samples,
    to_page,
)
from rammerge.overlap.advisor import advice_for
from rammerge.overlap.overlap import Overlap
from rammerge.publishing.manifest import Manifest
from rammerge.system.atomic import write_json, write_text
from rammerge.system.tables import Table
from rammerge.version import __version__
from tasks.records.record import Judged, Record
from tasks.runtime.result import Result
from tasks.runtime.step import step
from tasks.steps.conditions import Conditions
from tasks.steps.evaluating import Scores

_SHOWN_ALREADY = {"Overlap", "Cosine of the task vectors"}

PAGE, CONTENT = "report.html", "report.json"


class Reported(Result):
    """The report: `report.html` in `path`, and what it says as data in `report.json`."""

    @property
    def page(self) -> Path:
        """The file."""
        return self.path / PAGE


@step("report", version=4, run_name="write the report", result=Reported)
def report(out: Path, record: Record, judged: Judged, conditions: Conditions) -> None:
    """Write `report.html`, which needs no script, no server and no network, and `report.json`.

    Args:
        out: written: the page and its content.
        record: the run.
        judged: what its evaluation came to.
        conditions: everything that scores depend on, except the models and the suites.
    """
    board = judged.leaderboard.load()
    overlap = Overlap.from_json(json.loads(record.overlap.json_file.read_text("utf-8")))
    content = Page(
        title=record.recipe.name,
        board=board,
        decision=judged.decision.load(),
        agents=list(_agents(overlap)),
        figures=_figures(overlap),
        atlas=build_atlas(overlap),
        variants=[_variant(record, name) for name in board.names("variant")],
        flips=list(_flips(judged.scores, board)),
        costs=[_cost(record, name, scores) for name, scores in judged.scores.items()],
        shared_seconds=record.seconds(),
        facts=_facts(record, conditions),
        recipe=record.recipe_text,
        warnings=record.overlap.warnings,
        search=record.searched.load() if record.searched else None,
        domains={suite.name: suite.domain for suite in record.suites},
        samples={name: _answers(scores) for name, scores in judged.scores.items()},
        advice=advice_for(overlap.features()),
    )
    write_json(out / CONTENT, content.to_json())
    write_text(out / PAGE, to_page(content))


def _agents(overlap: Overlap) -> Iterator[AgentChange]:
    cosines = overlap.gram.cosines() if overlap.gram else []
    for index, (name, row) in enumerate(overlap.summary().items()):
        to_others = dict(zip(overlap.agents, cosines[index], strict=True)) if cosines else {}
        yield AgentChange(name, row["density"], row["unique_share"], to_others)


def _figures(overlap: Overlap) -> list[Table]:
    """Return what `inspect` prints of the agents, but for what stands on the page already."""
    return [table for table in overlap.tables() if table.title and table.title not in _SHOWN_ALREADY]


def _variant(record: Record, name: str) -> VariantFacts:
    merged = record.variants[name]
    survival = Manifest.read(merged.path).survival.to_json()
    return VariantFacts(
        name=name,
        method=record.methods[name].words,
        factors=merged.factors,
        kept_share=survival["kept_share"],
        survived={agent: counts["survived_share"] for agent, counts in survival["agents"].items()},
        warnings=merged.warnings,
    )


def _flips(scores: Mapping[str, Scores], board: Leaderboard) -> Iterator[Flip]:
    champion = board.champion.row if board.champion else None
    for other in dict.fromkeys([champion, board.best_agent, board.names("base")[0]]):
        if other is not None and other != board.selected:
            for suite in board.suites:
                ours, theirs = (read_samples(_answers(scores[name])[suite]) for name in (board.selected, other))
                yield from find_flips(suite, other, ours, theirs)


def _answers(scores: Scores) -> dict[str, str]:
    """Return the file with a model's answers on test, by suite."""
    return {suite: str(directory / "test.jsonl") for suite, directory in scores.directories.items()}


def _cost(record: Record, name: str, scores: Scores) -> Cost:
    results = [result for by_split in scores.load().values() for result in by_split.values()]
    tokens = [result.tokens for result in results if result.tokens is not None]
    peaks = [result.peak_memory for result in results if result.peak_memory is not None]
    seconds = record.seconds(name)
    if name in record.recipe.routed:  # the time of the agents that are asked
        seconds["evaluate"] = math.fsum(result.seconds for result in results)
    return Cost(name, seconds, sum(tokens) if tokens else None, max(peaks, default=None))


def _facts(record: Record, conditions: Conditions) -> dict[str, str]:
    return {
        "rammerge": __version__,
        "recipe": record.recipe.digest,
        **{name: model.provenance for name, model in {**record.sources, **record.yardsticks}.items()},
        record.variant: record.selected.digest,
        **{f"suite {suite.name}": suite.digest for suite in record.suites},
        **{name: str(value) for name, value in conditions.model_dump(exclude={"devices"}).items() if value is not None},
    }
