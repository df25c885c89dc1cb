"""Contract: SmolLM2's scores judge what an answer says or does, run nothing of it, and survive any completion."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.smollm2.domains import DOMAINS, Doc
from examples.smollm2.suites.functions import scoring as functions

DOCS: dict[str, Doc] = {
    "recall": {"target": "Rome", "values": ["Paris", "Rome", "cat", "dog"]},
    "sums": {"target": "32"},
    "functions": {"tests": [[[3, 1, 2], 13], [[9], 19], [[0, 4], 14]]},  # max(x) + 10
}
PIECES = ["def f(x):", "return", "x", "max", "(", ")", "[", "]", " + ", "10", "lambda x:", "for i in", "\n", "*", "9"]
completions = st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=30).map(" ".join))


@settings(max_examples=50)
@given(completions)
def test_no_completion_makes_a_score_raise(completion: str) -> None:
    for name, doc in DOCS.items():
        assert DOMAINS[name].score(doc, completion) in (0.0, 1.0)


@pytest.mark.parametrize(
    ("domain", "completion", "reached"),
    [
        ("recall", "Emma lives in Rome.", 1.0),
        ("recall", "ROME", 1.0),
        ("recall", "Emma lives in Paris.", 0.0),
        ("recall", "Emma lives in Rome or Paris.", 0.0),
        ("recall", "Romeo", 0.0),
        ("sums", "27 + 5 = 32.", 1.0),
        ("sums", "The sum is 32 or 33", 0.0),
        ("sums", "032", 0.0),
        ("sums", "", 0.0),
        ("functions", "def f(x):\n    return max(x) + 10", 1.0),
        ("functions", "```python\ndef add(values):\n    return 10 + sorted(values)[-1]\n```", 1.0),
        ("functions", "f = lambda x: max(x) + 10", 1.0),
        ("functions", "lambda x: [i + 10 for i in x if i == max(x)][0]", 1.0),
        ("functions", "lambda x: max(x) + 10.0", 0.0),
        ("functions", "def f(x): return 13", 0.0),
        ("functions", "def f(x):\n    return max(x) + 10\n```\n\nThis function", 0.0),
    ],
)
def test_an_answer_is_judged_by_what_it_says_or_does(domain: str, completion: str, reached: float) -> None:
    assert DOMAINS[domain].score(DOCS[domain], completion) == reached


@pytest.mark.parametrize(
    "program",
    [
        "__import__('os')",
        "open('/etc/passwd')",
        "x.__class__",
        "x.append(1)",
        "'{0.__class__}'.format(x)",
        "f'{x}'",
        "'%99999999d' % 1",
        "(lambda: x)()",
        "max(x, key=print)",
        "[i for i in x for j in x]",
        "[[1]][0:1:0]",
        "9**9**9",
        "2**9999",
        "'a' * 9999",
        "x * 9999",
        "str(x) * 9",
        "range(10**12)",
        "[sum(range(100)) + i * i * i for i in range(199)][0:9] + [i * i * i * i * i for i in range(199)] * 9",
        "[[[[[x] * 99] * 99] * 99] * 99] * 99",
        "[[i] for i in range(9)]",
        "'a'.replace('', 'b' * 99) * 2",
        "x if",
        "unknown",
        "1 < 2 < 3",
    ],
)
def test_the_evaluator_refuses_what_is_outside_the_subset_or_its_bounds(program: str) -> None:
    with pytest.raises(functions.ProgramError):
        for x in ([1] * 190, "b" * 190):
            functions.run_function(functions.read_function(f"lambda x: {program}"), x)


EXPRESSIONS = (
    "x + 3", "3 - x", "x * -7", "x // 4", "x % 5", "x ** 2 - x", "-x", "not x", "x > 4", "x != 4", "abs(x - 9)",
    "max(x, 4)", "x if x % 2 == 0 else 0", "[i * x for i in range(4) if i != 2]", "str(x)[::-1]", "x in [1, 2, 3]",
)  # fmt: skip


@settings(max_examples=50)
@given(st.integers(-50, 50), st.sampled_from(EXPRESSIONS))
def test_an_expression_means_what_it_means_in_python(x: int, expression: str) -> None:
    wanted: Any = eval(expression, {"x": x})
    found = functions.run_function(functions.read_function(f"lambda x: {expression}"), x)
    assert repr(found) == repr(wanted)
