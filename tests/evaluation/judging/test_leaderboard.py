"""Contract: chosen on validation, reported on test, compared only where comparable, rendered with its conditions."""

import dataclasses
import json
import re
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from evaluation import statistics
from evaluation.judging.building import build_leaderboard
from evaluation.judging.leaderboard import CHAMPION, Champion, Leaderboard
from evaluation.report.differences import differences_to_rich
from evaluation.report.figures import leaderboard_figure, leaderboard_png
from evaluation.report.render import to_markdown, to_rich
from evaluation.results import SuiteResult
from evaluation.suites import SPLITS
from rammerge.errors import InputError
from tests.evaluation.boards import AGENTS, SUITES, VARIANTS, ModelResults, all_results, board, model_results, result


def failing_on_test(results: ModelResults) -> ModelResults:
    """Give the model no correct answer on test, and leave validation as it is."""
    return {
        suite: by_split | {"test": result(suite, "test", [0.0] * by_split["test"].n)}
        for suite, by_split in results.items()
    }


def test_validation_chooses_and_test_does_not() -> None:
    results = all_results()
    results["ram"] = failing_on_test(results["ram"])
    chosen = board(results)
    assert chosen.selected == "ram"
    assert chosen.row("ram").average["test"].value == 0.0
    results["code"] = failing_on_test(results["code"])
    results["full"] = failing_on_test(results["full"])
    chosen = board(results)
    assert (chosen.best_agent, chosen.reference) == ("code", "full")


def test_rows_are_base_agents_and_variants_by_validation() -> None:
    assert [(row.name, row.kind, row.method) for row in board().rows] == [
        ("base", "base", None),
        ("tool", "agent", None),
        ("code", "agent", None),
        ("ram", "variant", "ram"),
        ("full", "variant", "task_arithmetic"),
        ("half", "variant", "task_arithmetic"),
    ]


def test_ties_go_to_the_better_worst_suite_then_to_the_name() -> None:
    results = all_results()
    results["half"], results["ram"], results["full"] = map(model_results, ((0.5, 0.9), (0.7, 0.7), (0.9, 0.5)))
    assert [row.name for row in board(results).rows[3:]] == ["ram", "full", "half"]


def test_averages_weigh_suites_alike_whatever_their_sizes() -> None:
    results = {
        name: {
            "small": {split: result("small", split, [1.0] * 10) for split in SPLITS},
            "large": {split: result("large", split, [0.0] * 90) for split in SPLITS},
        }
        for name in all_results()
    }
    assert board(results).row("ram").average["test"].value == 0.5


def test_the_family_is_every_variant_against_the_three_references() -> None:
    chosen = board()
    shown = {(entry.comparison.ours, entry.role): entry for entry in chosen.comparisons}
    assert set(shown) == {(name, role) for name in VARIANTS for role in ("base", "best_agent", "reference")} - {
        ("full", "reference")
    }
    p_values = [entry.comparison.average.p_value for entry in chosen.comparisons]
    assert [entry.holm_p for entry in chosen.comparisons] == statistics.holm(p_values)
    for (name, role), entry in shown.items():
        other = {"base": "base", "best_agent": "code", "reference": "full"}[role]
        assert entry.comparison == chosen.compare(name, other)
        assert entry.comparison.split == "test"
    ours, theirs = (chosen.scores[name]["test"] for name in ("ram", "code"))
    average = chosen.compare("ram", "code").average
    assert average.value == pytest.approx(np.mean([np.subtract(ours[s], theirs[s]) for s in SUITES]))
    assert average.low < average.value < average.high


def test_without_a_reference_method_its_column_is_left_out() -> None:
    chosen = board(reference_method="ties")
    assert chosen.reference is None
    assert {entry.role for entry in chosen.comparisons} == {"base", "best_agent"}
    assert "best ties" not in to_markdown(chosen)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"dtype": "bfloat16"}, r"the dtype differs \(bfloat16 against float32\)"),
        ({"lm_eval_version": "0.4.14"}, r"the lm-eval version differs \(0.4.14 against 0.4.13\)"),
        ({"suite_digest": "edited"}, r"the suite digest differs \(edited against digest of zoo_code\)"),
        ({"items_digest": "other"}, "the items digest differs"),
        ({"limit": 60}, r"the limit differs \(60 against None\)"),
        ({"decoding": "5 answers at temperature 0.7"}, r"the decoding differs \(5 answers .* against greedy\)"),
        ({"few_shot": {"zoo_code_test": 2}}, "the number of few-shot examples differs"),
        ({"sandbox": "bubblewrap 0.11.0"}, r"the sandbox differs \(bubblewrap 0.11.0 against None\)"),
        ({"scores": {"a": 1.0}}, r"the number of items differs \(1 against 60\)"),
        ({"scores": {f"other-{index}": 1.0 for index in range(60)}}, "the list of item ids differs"),
    ],
)
def test_what_does_not_compare_is_refused(changes: dict[str, Any], what: str) -> None:
    results = all_results()
    results["ram"]["zoo_code"]["test"] = dataclasses.replace(results["ram"]["zoo_code"]["test"], **changes)
    with pytest.raises(InputError, match=rf"'ram' and 'base' on zoo_code \(test\) cannot be compared: {what}"):
        board(results)


def test_answers_and_clusters_are_what_intervals_are_made_of() -> None:
    clusters = {split: {f"{split}-{index:03d}": str(index // 6) for index in range(60)} for split in SPLITS}
    results = all_results()
    for by_suite in results.values():
        by_suite["zoo_code"] = {
            split: dataclasses.replace(of_split, clusters=clusters[split])
            for split, of_split in by_suite["zoo_code"].items()
        }
        by_suite["zoo_tool"] = {
            split: dataclasses.replace(
                of_split, decoding="2 answers", answers={item: [score, 1.0] for item, score in of_split.scores.items()}
            )
            for split, of_split in by_suite["zoo_tool"].items()
        }
    chosen = board(results)
    assert Leaderboard.from_json(json.loads(json.dumps(chosen.to_json()))) == chosen
    labels = [index // 6 for index in range(60)]
    found, plain = chosen.compare("ram", "base").suites, board().compare("ram", "base").suites
    ours, theirs = (list(all_results()[name]["zoo_code"]["test"].scores.values()) for name in ("ram", "base"))
    expected = statistics.paired_difference(ours, theirs, clusters=labels)
    assert (found["zoo_code"].low, found["zoo_code"].high) == (expected.low, expected.high)
    assert (found["zoo_code"].clusters, plain["zoo_code"].clusters) == (10, None)
    assert (found["zoo_tool"].clusters, found["zoo_tool"].n, found["zoo_tool"].value) == (
        60,
        60,
        plain["zoo_tool"].value / 2,
    )
    one = {split: dict.fromkeys(of_split, "same") for split, of_split in clusters.items()}
    for by_suite in results.values():
        by_suite["zoo_code"]["test"] = dataclasses.replace(by_suite["zoo_code"]["test"], clusters=one["test"])
    with pytest.raises(InputError, match=r"of zoo_code \(test\) are all of the cluster 'same', which says nothing"):
        board(results)


def test_one_dtype_for_all_suites() -> None:
    results = all_results()
    for by_suite in results.values():
        for split, of_split in by_suite["zoo_code"].items():
            by_suite["zoo_code"][split] = dataclasses.replace(of_split, dtype="bfloat16")
    with pytest.raises(InputError, match=r"zoo_tool \(.*\) was evaluated in float32 but zoo_code \(.*\) .* bfloat16"):
        board(results)


def test_missing_results_are_named() -> None:
    results = all_results()
    del results["half"]["zoo_tool"]
    with pytest.raises(InputError, match="'half' was evaluated on zoo_code but 'base' on zoo_tool, zoo_code"):
        board(results)
    del results["half"]
    with pytest.raises(InputError, match="no results of 'half'"):
        board(results)
    results = all_results()
    del results["tool"]["zoo_code"]["validation"]
    with pytest.raises(InputError, match="'tool' has no validation result on zoo_code"):
        board(results)
    with pytest.raises(InputError, match="at least one agent and one variant"):
        build_leaderboard(all_results(), base="base", agents=AGENTS, variants={})
    with pytest.raises(InputError, match=r"no model 'rams' \(did you mean 'ram'\?\)"):
        board().compare("rams", "base")


def test_json_round_trip_and_determinism() -> None:
    chosen = board()
    written = json.dumps(chosen.to_json(), allow_nan=False)
    assert Leaderboard.from_json(json.loads(written)) == chosen
    assert json.dumps(board().to_json(), allow_nan=False) == written
    one = all_results()["ram"]["zoo_tool"]["test"]
    assert SuiteResult.from_json(json.loads(json.dumps(one.to_json()))) == one


def text(table: Table, width: int = 140) -> str:
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_every_rendering_says_split_size_and_dtype() -> None:
    chosen = board()
    for rendering in (to_markdown(chosen), text(to_rich(chosen)), text(differences_to_rich(chosen))):
        plain = " ".join(rendering.split())
        assert "Test split, 2 suites of 60 items" in plain
        assert "float32" in plain
    for rendering in (to_markdown(chosen), text(to_rich(chosen))):
        assert "Selected on the validation split (2 suites of 40 items): ram" in " ".join(rendering.split())


def test_markdown_marks_the_selected_and_the_best() -> None:
    lines = to_markdown(board()).splitlines()
    header, _, *rows = [line for line in lines if line.startswith("|")][:8]
    columns = [cell.strip() for cell in header.strip("|").split("|")]
    cells = {re.sub(r"[→*]", "", row[0]).strip(): row for row in map(split_row, rows)}
    assert columns == ["model", "kind", "zoo_tool", "zoo_code", "average", "on validation"]
    assert [name for name, row in cells.items() if "→" in row[0]] == ["ram"]
    assert {name for name, row in cells.items() if row[2].startswith("**")} == {"ram", "tool"}
    assert {name for name, row in cells.items() if row[3].startswith("**")} == {"code"}
    assert {name for name, row in cells.items() if row[4].startswith("**")} == {"ram"}
    low, high = statistics.wilson_interval(54, 60)
    assert cells["ram"][2] == f"**90.0 ({100 * low:.0f}-{100 * high:.0f})**"


def test_many_suites_are_shown_in_several_tables_that_a_page_has_room_for() -> None:
    names = [f"suite{number}" for number in range(9)]
    results = {
        model: {name: {split: result(name, split, [1.0, 0.0]) for split in SPLITS} for name in names}
        for model in all_results()
    }
    headers = [split_row(line) for line in to_markdown(board(results)).splitlines() if line.startswith("| model")]
    assert [title for header in headers for title in header[2:]] == [*names, "average", "on validation"]
    assert all(len(header) <= 7 for header in headers)


def split_row(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_for_a_terminal_lists_every_model_in_order() -> None:
    chosen = board()
    names = [row.name for row in chosen.rows]
    found = re.findall(rf"^ *→? *({'|'.join(names)})\b", text(to_rich(chosen), width=80), flags=re.MULTILINE)
    assert found == names


def test_the_figure_is_a_png_and_repeatable() -> None:
    image = leaderboard_png(board())
    assert image.startswith(b"\x89PNG\r\n\x1a\n")
    assert leaderboard_png(board()) == image


def test_nothing_that_the_figure_says_is_cut() -> None:
    longest = "task_arithmetic-scale0.75-of-a-long-family"
    results = {longest if name == "half" else name: result for name, result in all_results().items()}
    variants = {longest if name == "half" else name: method for name, method in VARIANTS.items()}
    figure = leaderboard_figure(build_leaderboard(results, base="base", agents=AGENTS, variants=variants))
    figure.draw_without_rendering()  # lays it out
    drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert 0 <= drawn.x0 < drawn.x1 <= width
    assert 0 <= drawn.y0 < drawn.y1 <= height


def test_a_champion_from_another_run_is_a_row_and_a_column() -> None:
    results = all_results() | {CHAMPION: model_results((0.6, 0.6))}
    chosen = board(results, champion=Champion(name="zoo version 3", row=CHAMPION))
    assert [row.name for row in chosen.rows] == ["base", "tool", "code", CHAMPION, "ram", "full", "half"]
    assert chosen.selected == "ram"  # only variants are chosen
    assert "| champion | champion | " in to_markdown(chosen)
    assert "the champion, zoo version 3" in to_markdown(chosen)
    assert Leaderboard.from_json(json.loads(json.dumps(chosen.to_json()))) == chosen
    assert leaderboard_png(chosen)


def test_a_champion_that_a_variant_equals_has_no_row_of_its_own() -> None:
    chosen = board(champion=Champion(name="zoo version 3", row="full"))
    assert [row.name for row in chosen.rows] == [row.name for row in board().rows]
    full = next(line for line in to_markdown(chosen).splitlines() if line.startswith("| full | ") and "p" in line)
    assert "itself" in full
