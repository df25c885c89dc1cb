"""Contract: yardsticks are on the leaderboard, variants are compared with them, and none is ever selected.

What a server does not tell is not compared. A bound has no differences, because nothing surpasses it.
"""

from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from evaluation.judging.deciding import decide, parse_gate
from evaluation.judging.leaderboard import Leaderboard, Yardstick
from evaluation.report.differences import differences_to_markdown
from evaluation.report.render import best_cells, to_markdown, to_rich
from evaluation.suites import SPLITS
from rammerge.errors import InputError
from tests.evaluation.boards import ModelResults, all_results, board, model_results

YARDSTICKS = {
    "api": Yardstick(kind="yardstick", note="big at http://127.0.0.1/v1"),
    "router": Yardstick(kind="ensemble", note="keeps all agents"),
    "oracle": Yardstick(kind="bound", note="an upper bound"),
}


def measured(**of_api: Any) -> Leaderboard:
    """Return a leaderboard on which every yardstick beats every variant."""
    perfect = model_results((1.0, 1.0))
    api = {
        suite: {split: replace(result, **of_api) for split, result in by_split.items()}
        for suite, by_split in perfect.items()
    }
    results: dict[str, ModelResults] = {**all_results(), "api": api, "router": perfect, "oracle": perfect}
    return board(results, yardsticks=YARDSTICKS)


def test_they_stand_between_agents_and_variants_and_none_is_selected() -> None:
    found = measured()
    assert [row.kind for row in found.rows[:6]] == ["base", "agent", "agent", "yardstick", "ensemble", "bound"]
    assert found.selected == "ram" and found.best_agent in ("tool", "code")
    assert found.names("variant")[0] == "ram"
    assert Leaderboard.from_json(found.to_json()) == found


def test_variants_are_compared_with_all_but_a_bound() -> None:
    found = measured()
    compared = {shown.comparison.theirs for shown in found.comparisons if shown.role == "yardstick"}
    assert compared == {"api", "router"}
    text = to_markdown(found)
    assert "| api | yardstick |" in text and "api: big at http://127.0.0.1/v1." in text
    header = next(line for line in differences_to_markdown(found) if line.startswith("| variant |"))
    assert header.endswith("| reference | api | router |")
    assert {name for name, _ in best_cells(found)} == {"api", "router"}, "a bound is never the best"


def test_what_a_server_does_not_tell_is_not_compared() -> None:
    found = measured(dtype="unknown", backend="unknown")
    assert found.dtype == "float32"
    with pytest.raises(InputError, match="the dtype differs"):
        measured(dtype="bfloat16")
    with pytest.raises(InputError, match="the backend differs"):
        measured(backend="vllm")


def test_a_servers_template_is_its_own() -> None:
    results = all_results()
    for name in results:
        for split in SPLITS:
            results[name]["zoo_code"][split] = replace(results[name]["zoo_code"][split], chat_template="a")
    found = board({**results, "api": model_results((1.0, 1.0))}, yardsticks={"api": YARDSTICKS["api"]})
    decision = decide(found, "ram", [parse_gate({"rule": "better_than", "model": "api"})])
    assert not decision.passed and "ram is not shown to be better than api" in decision.outcomes[0].sentence


def test_a_path_in_a_note_is_shown_as_it_is() -> None:
    note = "./models/[v2]/[/api], evaluated as the other models are"
    found = measured().model_copy(update={"yardsticks": {"api": Yardstick(kind="yardstick", note=note)}})
    console = Console(width=200)
    with console.capture() as shown:
        console.print(to_rich(found))
    assert note in shown.get()
    assert r"./models/\[v2\]/\[/api\], evaluated" in to_markdown(found)
