"""Contract of `bfcl`: answers are parsed and never run, and calls count as BFCL's own checker counts them.

That checker is not a dependency; `python -m benchmarks.bfcl` compares both on all items, here are its rules one by one.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from evaluation.suites.bundled.bfcl.calls import calls_in
from evaluation.suites.bundled.bfcl.prepare import items
from evaluation.suites.bundled.bfcl.scoring import process_results


@pytest.mark.parametrize(
    ("answer", "calls"),
    [
        ("[f(a=1, b='x')]", [("f", {"a": 1, "b": "x"})]),
        ("f(a=1)", [("f", {"a": 1})]),
        ("```python\n[m.f(a=-1.5), g()]\n```", [("m.f", {"a": -1.5}), ("g", {})]),
        ("[f(a=[1, (2, 3)], b={'k': None}, c=True)]", [("f", {"a": [1, (2, 3)], "b": {"k": None}, "c": True})]),
        ("[f(a=name, b=g(x=1), c=2 * 3)]", [("f", {"a": "name", "b": {"g": {"x": 1}}, "c": "2 * 3"})]),
        ('<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>', [("f", {"a": 1})]),
        (
            '<tool_call>{"name": "f", "arguments": {}}</tool_call> <tool_call>{"name": "g", "arguments": {}}',
            [("f", {}), ("g", {})],
        ),
        ("[]", []),
        ("I would call f(a=1).", None),
        ("none", None),
        ("[1]", None),
        ("<tool_call>{}</tool_call>", None),
        ("<tool_call>[1]</tool_call>", None),
        ("[" * 100_000, None),
        ("f(a=" + "-" * 100_000 + "1)", None),
        ("", []),
    ],
)
def test_answers_are_parsed(answer: str, calls: list[Any] | None) -> None:
    assert calls_in(answer) == calls


def test_nothing_in_an_answer_runs(tmp_path: Path) -> None:
    made = tmp_path / "made"
    for text in (
        f"f(a=open({str(made)!r}, 'w'))",
        f"f(a=[open({str(made)!r}, 'w') for _ in 'x'])",
        f"open({str(made)!r}, 'w')",
    ):
        calls_in(text)
        calls_in(f"f(a=1 + {text})")
    assert not made.exists()


def function(**parameters: Any) -> dict[str, Any]:
    required = [name for name in parameters if not name.startswith("o_")]
    return {"name": "f", "parameters": {"type": "dict", "properties": parameters, "required": required}}


TEXT, WHOLE, REAL = {"type": "string"}, {"type": "integer"}, {"type": "float"}
LIST = {"type": "array", "items": TEXT}
DICTS = {"type": "array", "items": {"type": "dict"}}

RULES: list[tuple[dict[str, Any], dict[str, Any], str, bool]] = [
    (function(a=WHOLE), {"a": [1, 2]}, "f(a=2)", True),
    (function(a=WHOLE), {"a": [1]}, "f(a=1.0)", False),
    (function(a=WHOLE), {"a": [1]}, "f(a='1')", False),
    (function(a=WHOLE), {"a": [1]}, "f(a=True)", False),
    (function(a=WHOLE), {"a": [1]}, "f()", False),
    (function(a=WHOLE), {"a": [1]}, "f(a=1, b=1)", False),
    (function(a=WHOLE), {"a": [1]}, "g(a=1)", False),
    (function(a=REAL), {"a": [1.0]}, "f(a=1)", True),
    (function(a=TEXT), {"a": ["New York, NY"]}, "f(a='new york ny')", True),
    (function(a=TEXT), {"a": ["New York"]}, "f(a='York')", False),
    (function(a=WHOLE), {"a": ["x_size"]}, "f(a=x_size)", True),
    (function(a=WHOLE), {"a": ["x_size"]}, "f(a=X_SIZE)", False),
    (function(o_a=WHOLE), {"o_a": [1, ""]}, "f()", True),
    (function(o_a=WHOLE), {"o_a": [1]}, "f()", False),
    (function(a=LIST), {"a": [["x", "Y"]]}, "f(a=['X', 'y'])", True),
    (function(a=LIST), {"a": [["x", "y"]]}, "f(a=['y', 'x'])", False),
    (function(a=LIST), {"a": [["x"]]}, "f(a=[1])", False),
    (function(a={"type": "tuple", "items": WHOLE}), {"a": [[1, 2]]}, "f(a=(1, 2))", True),
    (function(a={"type": "dict"}), {"a": [{"k": ["v", "w"], "o": [1, ""]}]}, "f(a={'k': 'W'})", True),
    (function(a={"type": "dict"}), {"a": [{"k": ["v"]}]}, "f(a={'k': 'v', 'l': 1})", False),
    (function(a={"type": "dict"}), {"a": [{"k": ["v"]}]}, "f(a={})", False),
    (function(a=DICTS), {"a": [[{"k": [1]}, {"k": [2]}]]}, "f(a=[{'k': 1}, {'k': 2}])", True),
    (function(a=DICTS), {"a": [[{"k": [1]}, {"k": [2]}]]}, "f(a=[{'k': 2}, {'k': 1}])", False),
    (function(a=DICTS), {"a": [[{"k": [1]}]]}, "f(a=[1])", False),
]


@pytest.mark.parametrize(("described", "allowed", "answer", "right"), RULES)
def test_a_call_is_right_as_bfcl_says(described: dict[str, Any], allowed: Any, answer: str, right: bool) -> None:
    doc = {"functions": [described], "answers": [{"f": allowed}]}
    assert process_results(doc, [answer]) == {"acc": float(right)}


def test_several_calls_may_come_in_any_order_and_none_may_be_left_over() -> None:
    doc = {"functions": [function(a=WHOLE)], "answers": [{"f": {"a": [1]}}, {"f": {"a": [2]}}]}
    scores = [
        process_results(doc, [said])["acc"] for said in ("f(a=1), f(a=2)", "f(a=2), f(a=1)", "f(a=1)", "f(a=1), f(a=1)")
    ]
    assert scores == [1.0, 1.0, 0.0, 0.0]
    assert process_results(doc, ["f(a=1), f(a=2), f(a=2)"])["acc"] == 0.0


def test_items_that_offer_the_same_functions_lie_in_one_split() -> None:
    files = {}
    for part in ("simple_python", "live_simple"):
        lines = [
            {
                "id": f"{part}_{n}",
                "question": [[{"role": "user", "content": f"{part} {n}"}]],
                "function": [function(a=WHOLE) | {"name": f"f{n // 2}"}],
            }
            for n in range(20)
        ]
        answers = [{"id": line["id"], "ground_truth": [{f"f{n // 2}": {"a": [1]}}]} for n, line in enumerate(lines)]
        files[f"data/BFCL_v4_{part}.json"] = "\n".join(map(json.dumps, lines)).encode()
        files[f"data/possible_answer/BFCL_v4_{part}.json"] = "\n".join(map(json.dumps, answers)).encode()
    found = items(files)
    assert sum(map(len, found.values())) == 40
    assert {item["offered"] for item in found["validation"]} & {item["offered"] for item in found["test"]} == set()
    assert {item["part"] for item in found["test"][:2]} == {"simple_python", "live_simple"}
    for item in found["test"]:
        (name,) = item["answers"][0]
        assert process_results(item, [f"{name}(a=1)"]) == {"acc": 1.0}
        assert f'"name": "{name}"' in item["prompt"]
