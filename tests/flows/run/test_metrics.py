"""Contract: what runs came to is remembered in order, told in Prometheus's format, and drawn.

Every metric that the dashboard asks for exists. A line of a different release does no harm.
"""

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from prometheus_client.parser import text_string_to_metric_families

from flows.cli.program import _run
from flows.run import past
from flows.run.metrics import exposition, names
from flows.run.past import Past, Score, past_runs
from flows.run.trend import markdown

DASHBOARD = Path(__file__).parents[3] / "deploy" / "grafana" / "rammerge.json"


def ended(recipe: str = "zoo", **changes: Any) -> Past:
    settled: dict[str, Any] = {
        "run": "f1",
        "started": 1000.0,
        "seconds": 60.0,
        "end": "passed",
        "steps": {"merge": {"done": 2, "cached": 1}, "gate": {"done": 1}},
        "step_seconds": {"merge": 4.5, "gate": 0.5},
        "merged_bytes": 2048,
        "tokens": 900,
        "evaluated_seconds": 3.0,
        "gates": {"min_score": True, "not_worse_than_champion": False},
        "model": "zoo",
        "version": 3,
        "challenger": Score(value=0.9, low=0.85, high=0.95),
        "champion": Score(value=0.8, low=0.75, high=0.85),
        "champion_version": 2,
    }
    return Past(recipe=recipe, **{**settled, **changes})


def samples() -> dict[tuple[str, tuple[str, ...]], float]:
    """Return what Prometheus reads: the values by name and sorted labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.values()))): sample.value
        for family in text_string_to_metric_families(exposition())
        for sample in family.samples
    }


def test_the_last_run_of_each_recipe_is_told() -> None:
    ended(end="refused").keep()
    ended().keep()
    nothing: dict[str, Any] = {"gates": {}, "challenger": None, "champion": None, "champion_version": None}
    ended(end="failed", seconds=5.0, steps={}, step_seconds={}, **nothing).keep()
    ended("other").keep()
    found = samples()
    assert found["rammerge_run_end_timestamp_seconds", ("zoo",)] == 1005.0
    assert found["rammerge_run_passed", ("zoo",)] == 0.0 and found["rammerge_run_passed", ("other",)] == 1.0
    assert [found["rammerge_runs", tuple(sorted((end, "zoo")))] for end in ("passed", "refused", "failed")] == [1, 1, 1]
    # A run that failed has no scores, and those before it still hold.
    assert found["rammerge_score", ("champion", "value", "zoo")] == 0.8
    assert found["rammerge_gate_passed", ("min_score", "zoo")] == 1.0
    assert found["rammerge_gate_passed", ("not_worse_than_champion", "zoo")] == 0.0
    assert found["rammerge_steps", ("done", "merge", "other")] == 2.0
    assert found["rammerge_step_duration_seconds", ("merge", "other")] == 4.5
    assert found["rammerge_cache_hit_ratio", ("other",)] == 0.25
    assert found["rammerge_merged_bytes", ("other",)] == 2048
    assert found["rammerge_evaluated_tokens_per_second", ("other",)] == 300.0
    assert (
        found["rammerge_champion_version", ("other", "zoo")] == found["rammerge_champion_version", ("zoo", "zoo")] == 2
    )


def test_the_command_prints_and_writes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(["metrics"], debug=True) == 0 and "rammerge_" not in re.sub("#.*", "", capsys.readouterr().out)
    ended().keep()
    assert _run(["metrics"], debug=True) == 0
    assert capsys.readouterr().out == exposition()
    assert _run(["metrics", "--out", str(tmp_path / "a" / "run.prom")], debug=True) == 0
    assert (tmp_path / "a" / "run.prom").read_text() == exposition()


def test_the_dashboard_asks_for_metrics_that_exist_and_shows_all() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked += [variable["query"]["query"] for variable in dashboard["templating"]["list"] if variable["type"] == "query"]
    found = set(re.findall(r"rammerge_\w+", " ".join(asked)))
    ended().keep()
    told = {family.name for family in text_string_to_metric_families(exposition())}
    assert found == names() == told
    labels = {
        label for family in text_string_to_metric_families(exposition()) for s in family.samples for label in s.labels
    }
    used = set(re.findall(r"\{\{(\w+)\}\}", DASHBOARD.read_text())) | set(re.findall(r'(\w+)=~?\\?"', " ".join(asked)))
    assert used <= labels


def test_runs_are_numbered_and_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch, rammerge_home: Path) -> None:
    monkeypatch.setattr(past, "_MOST", 3)
    assert [ended().keep().number for _ in range(5)] == [1, 2, 3, 4, 5]
    file = rammerge_home / "runs" / "past" / "zoo.jsonl"
    file.write_text(file.read_text() + '{"recipe": "of a later release"}\nhalf a li')
    assert [run.number for run in past_runs("zoo")] == [3, 4, 5]
    assert ended().keep().number == 6


def test_the_trend_is_a_drawing_and_a_table() -> None:
    runs = [ended(number=number, challenger=Score(value=0.5 + number / 100, low=0.4, high=0.7)) for number in (1, 2, 3)]
    runs.append(ended(number=4, end="failed", challenger=None, champion=None))
    text = markdown(runs)
    assert text.startswith("![Test average of challenger and champion over the runs](data:image/svg+xml;base64,")
    rows = [line for line in text.splitlines() if line.startswith("| ") and line[2].isdigit()]
    assert [row.split(" | ")[2] for row in rows] == ["failed", "passed", "passed", "passed"]
    assert "| ended (UTC) |" in text
    assert "53.0 (40.0 to 70.0)" in rows[1] and "80.0 (75.0 to 85.0)" in rows[1]
    from evaluation.report.trend import At, trend_svg

    drawing = ElementTree.fromstring(trend_svg({"a": [At(1, 0.5, 0.4, 0.6), At(2, 0.7, 0.6, 0.8)], "b": []}))
    lines = drawing.findall("{http://www.w3.org/2000/svg}polyline")
    (first, second) = (tuple(map(float, point.split(","))) for point in lines[0].attrib["points"].split())
    assert first[0] < second[0] and first[1] > second[1]  # a better score is higher on the page
    for few in ([], [At(7, 1.0, 1.0, 1.0)]):
        ElementTree.fromstring(trend_svg({"a": few}))
