"""Contract of `humaneval`: an answer passes if its function does, however a chat model wraps it.

The problems are two of our own in HumanEval's format: one whose tests call a helper of the prompt, and draw inputs.
"""

import gzip
import json
from typing import Any

import pytest

from evaluation.suites.bundled.humaneval.prepare import items
from evaluation.suites.bundled.humaneval.scoring import process_results

SHIFT = {
    "task_id": "HumanEval/0",
    "entry_point": "back",
    "prompt": (
        "import string\n\n\ndef ahead(text: str):\n    return ''.join(chr(ord(c) + 1) for c in text)\n\n\n"
        'def back(text: str):\n    """Take as input what ahead made, and return what it was made of."""\n'
    ),
    "canonical_solution": "    return ''.join(chr(ord(c) - 1) for c in text)\n",
    "test": (
        "def check(candidate):\n    import random\n    for _ in range(20):\n"
        "        text = ''.join(random.choices('abcdef', k=5))\n        assert candidate(ahead(text)) == text\n"
    ),
}
PAIR = {
    "task_id": "HumanEval/1",
    "entry_point": "pair",
    "prompt": 'def pair(x):\n    """Return x and its double as a tuple."""\n',
    "canonical_solution": "    return (x, 2 * x)\n",
    "test": "def check(candidate):\n    assert candidate(2) == (2, 4)\n    assert candidate(0.5) == (0.5, 1.0)\n",
}


@pytest.fixture(scope="module")
def made() -> dict[str, dict[str, Any]]:
    packed = gzip.compress("".join(json.dumps(problem) + "\n" for problem in (SHIFT, PAIR)).encode())
    by_split = items({"HumanEval.jsonl.gz": packed})
    return {item["function"]: item for of_split in by_split.values() for item in of_split}


BODY = PAIR["canonical_solution"]
WHOLE = f"def pair(x):\n{BODY}"


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        (BODY, 1.0),
        (WHOLE, 1.0),
        (f"Sure!\n```python\n{WHOLE}```\nIt returns a tuple.", 1.0),
        (f"```\nprint(1)\n```\n```py\n{WHOLE}", 1.0),
        (f"```python\ndef pair(x: int) -> tuple:\n{BODY}\nassert pair(1) == (1, 3)\n```", 0.0),
        ("```python\ndef pair(x):\n    return [x, 2 * x]\n```", 0.0),
        ("def pair(x):\n    return x", 0.0),
        ("none", 0.0),
        ("", 0.0),
    ],
)
def test_an_answer_scores_what_its_function_does(made: dict[str, dict[str, Any]], answer: str, score: float) -> None:
    assert process_results(made["pair"], [answer]) == {"acc": score}


def test_helpers_of_the_prompt_are_there_for_the_program_and_for_the_tests(made: dict[str, dict[str, Any]]) -> None:
    back = "def back(text):\n    return next(t for t in {0!r} if ahead(t) == text)"
    assert process_results(made["back"], [SHIFT["canonical_solution"]]) == {"acc": 1.0}
    everything = "(''.join(p) for p in __import__('itertools').product('abcdef', repeat=5))"
    assert process_results(made["back"], [back.replace("{0!r}", everything)]) == {"acc": 1.0}
    assert process_results(made["back"], ["def back(text):\n    return ahead(text)"]) == {"acc": 0.0}


def test_a_model_is_asked_for_the_whole_function(made: dict[str, dict[str, Any]]) -> None:
    assert PAIR["prompt"].strip() in made["pair"]["prompt"]
    assert BODY.strip() not in made["pair"]["prompt"]
    assert "assert" not in made["pair"]["begun"]
