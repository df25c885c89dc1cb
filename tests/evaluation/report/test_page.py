"""Contract: the report is one file that needs nothing else, tells the verdict first, and obeys no model's text."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from evaluation.judging.gates import GateDecision
from evaluation.power import detected
from evaluation.report.page import AgentChange, Atlas, Page, build_atlas, facing, find_flips, to_page
from tests.evaluation.boards import SUITES
from tests.evaluation.report.pages import MARKUP, TENSORS, TERMINAL, overlap, page, sample

# Elements that fetch, run or send something, and the attributes that do.
ACTIVE = {"script", "link", "iframe", "object", "embed", "form", "img", "video", "audio", "base", "input", "button"}
ADDRESSES = {"src", "href", "srcset", "action", "poster", "data", "background", "xlink:href"}


class Elements(HTMLParser):
    """The elements of a page, the attributes of each, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element that stays open."""
        self.found.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element that closes itself."""
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """Close the element that was opened last."""
        assert self.open.pop() == tag, f"{tag} closes nothing"

    def handle_data(self, data: str) -> None:
        """Note text, but for the style sheet's."""
        if self.open[-1:] != ["style"]:
            self.words.append(data)


def words(text: str) -> str:
    return " ".join("".join(Elements(text).words).split())


def test_nothing_on_the_page_acts_or_leads_outside() -> None:
    html = to_page(page())
    elements = Elements(html)
    assert elements.open == [], "an element is not closed"
    assert not ACTIVE & {tag for tag, _ in elements.found}
    assert not [name for _, given in elements.found for name in given if name in ADDRESSES or name.startswith("on")]
    assert "url(" not in html and "@import" not in html
    policy = next(given["content"] or "" for tag, given in elements.found if given.get("http-equiv"))
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'")


def test_the_text_of_models_and_users_is_shown_and_not_obeyed() -> None:
    html = to_page(page())
    assert MARKUP not in html and words(html).count(MARKUP) > 10
    assert f"Likely to win: {MARKUP}" in words(html)
    assert not set(html) & set(TERMINAL[:1] + "\x07\u202e\x00")
    assert r"\x1b[31mred\x07\u202eback\x00" in words(html)


def test_the_verdict_comes_first_with_its_numbers() -> None:
    content = page()
    board = content.board
    text = words(to_page(content))
    against = {shown.role: shown.comparison.average for shown in board.comparisons if shown.comparison.ours == "ram"}
    assert board.selected == "ram"
    assert "ram passes every gate. It scores" in text
    assert f"{100 * against['champion'].value:+.1f} against the champion (zoo version 3)" in text
    assert f"{100 * against['base'].value:+.1f} against the base" in text
    for shown in board.comparisons:
        average = shown.comparison.average
        assert f"{100 * average.low:+.1f} to {100 * average.high:+.1f}±{100 * detected(average):.1f}" in text


def test_refused_and_without_gates() -> None:
    decision = page().decision
    assert decision is not None
    outcome = decision.outcomes[0].model_copy(update={"passed": False, "sentence": "ram is too weak."})
    refused = decision.model_copy(update={"passed": False, "outcomes": (outcome,)})
    assert "ram is refused. It scores" in words(to_page(page(decision=refused)))
    assert "Refused beats_every_agent ram is too weak." in words(to_page(page(decision=refused)))
    none = GateDecision(variant="ram", passed=True, outcomes=())
    assert "ram is selected; the recipe has no gates." in words(to_page(page(decision=none)))


def test_directions_of_agents_are_compared_where_they_were_measured() -> None:
    assert "cosine to tool" in words(to_page(page())) and "-0.062" in words(to_page(page()))
    unmeasured = [AgentChange("tool", 0.3, 1 / 3), AgentChange("code", 0.25, 0.2)]
    assert "cosine" not in words(to_page(page(agents=unmeasured)))


def test_every_table_and_drawing_has_its_rows() -> None:
    content = page()
    html = to_page(content)
    board = content.board
    compared = len(
        [shown for shown in board.comparisons if shown.comparison.ours == "ram" and shown.role != "reference"]
    )
    marks = len(board.comparisons) + compared * len(board.suites) + len(["history", "trade-offs"])
    assert html.count("<svg") == marks + len(board.rows) * (len(board.suites) + 1) + len(board.suites)
    assert len(re.findall('<tr class="(?:base|agent|champion|variant)(?: selected)?"', html)) == len(board.rows)
    drawings = [given for tag, given in Elements(html).found if tag == "svg"]
    assert all(given.get("aria-hidden") == "true" or given["role"] == "img" for given in drawings)
    assert all(given.get("tabindex") == "0" for _, given in Elements(html).found if given.get("class") == "scroll")


def test_the_same_content_gives_the_same_page() -> None:
    assert to_page(page()) == to_page(page())


def test_a_page_without_flips_and_tensor_counts_is_whole() -> None:
    html = to_page(page(flips=[], atlas=None, warnings=[], variants=[], figures=[], search=None))
    assert Elements(html).open == []
    assert "Items that flipped" not in html and "The search" not in html


def test_counts_are_summed_by_layer_and_module() -> None:
    counts = {tensor: [[1, 2]] for tensor in TENSORS}
    atlas = build_atlas(overlap(("tool",), counts, TENSORS))
    assert atlas.layers == ["0", "2", "10", "outside"]
    assert list(atlas.modules) == ["up_proj", "q_proj", "embed_tokens", "norm"]
    experts = atlas.agents["tool"]["0"]["up_proj"]
    assert (experts.elements, experts.active, experts.unique) == (200, 6, 2)
    assert "q_proj" not in atlas.agents["tool"]["0"]
    assert atlas.pairs == {}
    assert atlas.highest == pytest.approx(0.3)
    assert Atlas([], [], {}).highest == 0.0


def test_flips_are_the_items_that_differ_most_and_few() -> None:
    ours = [sample(number, score, "ours") for number, score in enumerate([1.0, 0.0, 0.5, 1.0, 0.0, 1.0] * 5)]
    theirs = [sample(number, score, "theirs") for number, score in enumerate([1.0, 1.0, 1.0, 0.0, 0.0, 0.5] * 5)]
    flips = list(find_flips("suite", "base", ours, theirs))
    assert [flip.won for flip in flips] == [False] * 4 + [True] * 4
    assert {flip.theirs_score - flip.ours_score for flip in flips if not flip.won} == {1.0}
    assert not list(find_flips("suite", "base", ours, ours))
    long = [sample(0, 1.0, "a" * 10_000)]
    (flip,) = find_flips("suite", "base", long, [sample(0, 0.0, "b")])
    assert len(flip.ours) < 500 and "9,600 more characters" in flip.ours


def test_answers_in_a_different_order_are_no_flip() -> None:
    one, other = sample(1, 0.1 + 0.2, "a"), sample(1, 0.3, "b")
    assert one["score"] != other["score"] and not list(find_flips(SUITES[0], "base", [one], [other]))


def test_examples_in_a_prompt_are_not_added_up_over_tasks() -> None:
    content = page()
    asked = {
        suite: {split: each.model_copy(update={"few_shot": {"a": 5, "b": 5}}) for split, each in by_split.items()}
        for suite, by_split in content.board.asked.items()
    }
    html = to_page(replace(content, board=content.board.model_copy(update={"asked": asked})))
    assert '<td class="n">5</td>' in html and '<td class="n">10</td>' not in html


def test_a_page_can_be_made_again_from_its_data() -> None:
    content = page()
    again = Page.from_json(json.loads(json.dumps(content.to_json())), content.board)
    assert to_page(again) == to_page(content)


def test_two_runs_are_shown_on_one_page(tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.jsonl" for name in ("ram", "full")}
    for name, file in files.items():
        file.write_text(json.dumps(sample(1, float(name == "ram"), f"answer of {name}{TERMINAL}")) + "\n")
    kept = {name: {SUITES[0]: str(file)} for name, file in files.items()}
    ours = page(title="new", samples=kept, facts={"base": "same", "dtype": "float32"})
    theirs = page(title="old", samples=kept, facts={"base": "same", "dtype": "bfloat16"})
    both = facing(ours, "ram", theirs, "full", run="new", other="old")
    text = words(to_page(both))
    assert "ram of new against full of old" in text and "ram scores 90.0 % on average over 2 suites:" in text
    assert "+12.5 against full of old," in text and "Against full of old" in text and "champion" not in text
    assert "Won: i01" in text and r"answer of full\x1b[31m" in text
    assert both.facts == {"base": "same", "dtype": "float32", "old: dtype": "bfloat16"}
    assert [made.name for made in both.variants] == ["ram", "full of old"]
    assert not facing(replace(ours, samples={}), "ram", theirs, "full", run="new", other="old").flips


def test_related_items_are_told_with_what_they_cost() -> None:
    content = page()
    clusters = {
        split: {suite: [str(n // 6) for n in range(60)] for suite in SUITES} for split in ("validation", "test")
    }
    for clustered in (False, True):
        board = content.board.model_copy(update={"clusters": clusters} if clustered else {})
        html = to_page(replace(content, board=board))
        assert ("design effect" in html) == clustered
        assert (">independent<" in html) != clustered


def test_directions_by_layer_are_cosines_of_sums() -> None:
    products = {"a.0.x": [4.0, -1.0, 1.0], "a.0.y": [5.0, 2.0, 3.0], "b.1.x": [0.0, 0.0, 1.0], "c": [1.0, 1.0, 1.0]}
    counts = {name: [[1, 0], [1, 0]] for name in products}
    atlas = build_atlas(overlap(("tool", "code"), counts, dict.fromkeys(products, 9), products))
    assert atlas.pairs == {"tool, code": {"0": pytest.approx(1 / 6), "1": None, "outside": 1.0}}


def test_a_search_shows_its_history_and_its_trade_offs() -> None:
    text = words(to_page(page()))
    assert "ram_plus r=2.9winner10050.0108.079.0" in text
    assert "10 more were dropped" in text
    drawn = [given["aria-label"] for tag, given in Elements(to_page(page())).found if tag == "svg" and "role" in given]
    assert drawn == [
        "30 candidates; the best average on the first items is 79.0 percent.",
        "30 of 30 candidates are the best trade-offs of average and worst suite.",
    ]
