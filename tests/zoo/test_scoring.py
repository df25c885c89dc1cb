"""Contract: the zoo's scores are strict, judge behavior rather than text, and survive any completion of a model."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.suites.bundled.zoo_code import scoring as code
from evaluation.suites.bundled.zoo_memory import scoring as memory
from evaluation.suites.bundled.zoo_tool import scoring as tool

TOOL = {"function": "get_weather", "arguments": {"city": "paris", "day": "monday"}}
CODE = {"target": "x[1:3]+x[0:1]", "tests": [["abcde", "bca"], ["kgbfa", "gbk"]]}
MEMORY = {"target": "jade"}
ZOO: list[tuple[Callable[[Mapping[str, Any], str], float], dict[str, Any]]] = [
    (tool.score, TOOL),
    (code.score, CODE),
    (memory.score, MEMORY),
]

# Parts of right answers, so that random completions come close to one.
PIECES = ["get_weather", "(", ")", "=", ",", "city", "paris", "x", "[", "]", ":", "+", "*", "-", "9", "x[1:3]", "jade"]
completions = st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=40).map("".join))


@given(completions)
def test_no_completion_makes_a_score_raise(completion: str) -> None:
    for score, doc in ZOO:
        assert score(doc, completion) in (0.0, 1.0)


@pytest.mark.parametrize(
    "junk", ["", " ", "\0", "\n", "((((" * 20, "x[" * 40, "-" * 79 + "x", "\ud800", "٣", "x" * 10**6]
)
def test_junk_scores_zero(junk: str) -> None:
    assert [score(doc, junk) for score, doc in ZOO] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "call",
    [
        "get_weather(city=paris,day=monday)",
        "get_weather(day=monday,city=paris)",
        " get_weather ( city = paris , day = monday ) ",
    ],
)
def test_a_call_is_compared_as_a_structure(call: str) -> None:
    assert tool.score(TOOL, call) == 1.0


@pytest.mark.parametrize(
    "call",
    [
        "get_news(city=paris,day=monday)",
        "get_weather(city=monday,day=paris)",
        "get_weather(place=paris,day=monday)",
        "get_weather(city=paris)",
        "get_weather(city=paris,day=monday,hour=noon)",
        "get_weather(city=rome,city=paris,day=monday)",
        "get_weather(city=paris,city=paris,day=monday)",
        "get_weather(city=paris,day=monday,)",
        "get_weather(paris,monday)",
        "get_weather(city=paris,day=monday",
        "get_weather(city=paris,day=monday))",
        "get_weather(city=paris,day=monday) done",
        "Get_weather(city=paris,day=monday)",
    ],
)
def test_a_call_that_differs_is_wrong(call: str) -> None:
    assert tool.score(TOOL, call) == 0.0


@pytest.mark.parametrize(
    "program",
    ["x[1:3]+x[0:1]", "x[1]+x[2]+x[0]", "x[1:-2]+x[:1]", "(x[1:3]+x)[:3]", "x[2:0:-1][::-1]+x[0]*1", "x[1:3]+x[0:1]\n"],
)
def test_any_program_that_behaves_right_is_right(program: str) -> None:
    assert code.score(CODE, program) == 1.0


@pytest.mark.parametrize(
    "program", ["x[1:4]+x[0:1]", "x", "x[0:1]+x[1:3]", "x[9]+x[1:3]", "1", "x+1", "x[1:3]+x[0:1];x"]
)
def test_a_program_that_behaves_otherwise_is_wrong(program: str) -> None:
    assert code.score(CODE, program) == 0.0


def test_a_program_must_pass_every_held_out_input() -> None:
    assert code.score({"tests": [["ab", "a"], ["bb", "b"]]}, "x[0:1]") == 1.0
    assert code.score({"tests": [["ab", "b"], ["bb", "b"]]}, "x[0:1]") == 0.0


@pytest.mark.parametrize(
    "program",
    [
        "x.upper()",
        "x.__class__",
        "__import__('os')",
        "x if x else x",
        "lambda: x",
        "[x for x in x]",
        "x()",
        "x(x)",
        "y",
        "'bca'",
        "x[0:1:0]",
        "x[::x]",
        "x[1.0]",
        "x[1,2]",
        "x**2",
        "9**9**9",
        "x*9**9**9",
        "x*99*99*99",
        "x*1000000000",
        "x[" + "9" * 70 + "]",
        "((((" + "x" + "))))" * 30,
        "(" * 39 + "x" + ")" * 39 + "+x+x",
        "x+" * 60 + "x",
    ],
)
def test_the_evaluator_refuses_what_is_outside_the_subset_or_its_bounds(program: str) -> None:
    with pytest.raises(code.ProgramError):
        code.run_program(program, "abcde")


@given(st.integers(-7, 7), st.integers(-7, 7), st.integers(1, 3), st.text("abcdef", max_size=6))
def test_slices_mean_what_they_mean_in_python(start: int, stop: int, step: int, x: str) -> None:
    assert code.run_program(f"x[{start}:{stop}:{step}]*2+x", x) == x[start:stop:step] * 2 + x


@pytest.mark.parametrize(("completion", "reached"), [("jade", 1.0), (" jade", 1.0), ("jades", 0.0), ("jade tan", 0.0)])
def test_a_memory_must_be_exact(completion: str, reached: float) -> None:
    assert memory.score(MEMORY, completion) == reached


@pytest.mark.parametrize(
    ("process_results", "doc", "right"),
    [
        (tool.process_results, TOOL, "get_weather(city=paris,day=monday)"),
        (code.process_results, CODE, CODE["target"]),
        (memory.process_results, MEMORY, "jade"),
    ],
)
def test_lm_eval_gets_the_score_as_acc(
    process_results: Callable[[dict[str, Any], list[str]], dict[str, float]], doc: dict[str, Any], right: str
) -> None:
    assert process_results(doc, [right]) == {"acc": 1.0}
    assert process_results(doc, ["x"]) == {"acc": 0.0}
