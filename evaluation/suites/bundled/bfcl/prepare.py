"""The items of BFCL, from the package of its authors: questions of one turn, functions, and possible answers."""

import json
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import PurePosixPath
from typing import Any

from evaluation.suites.format import Split
from evaluation.suites.making.splitting import split

_VALIDATION = 0.3
_QUESTION = """\
You can call these functions:

{functions}

{question}

Answer with the calls that are needed, and with nothing else, in the form
[function(parameter=value, ...), ...]"""


def items(files: Mapping[str, bytes]) -> Mapping[Split, list[dict[str, Any]]]:
    """Return the items by split; those that offer the same functions, or ask nearly the same, lie in one.

    The parts take turns, so that the first items are a fair sample.
    """
    answers = {
        line["id"]: line["ground_truth"] for name in files if "possible_answer" in name for line in _lines(files[name])
    }
    parts = [
        [_item(line, PurePosixPath(name).stem, answers[line["id"]]) for line in _lines(content)]
        for name, content in files.items()
        if "possible_answer" not in name
    ]
    mixed = [item for turn in zip_longest(*parts) for item in turn if item is not None]
    return split(mixed, text="question", share=_VALIDATION, related="offered")


def _lines(content: bytes) -> Iterator[dict[str, Any]]:
    return map(json.loads, content.decode().splitlines())


def _item(line: Mapping[str, Any], part: str, answers: list[Any]) -> dict[str, Any]:
    (messages,) = line["question"]
    question = "\n\n".join(message["content"] for message in messages)
    functions = line["function"]
    offered = "\n".join(json.dumps(function, ensure_ascii=False) for function in functions)
    return {
        "id": line["id"],
        "part": part.removeprefix("BFCL_v4_"),
        "question": question,
        "prompt": _QUESTION.format(functions=offered, question=question),
        "functions": functions,
        "offered": " ".join(sorted(function["name"] for function in functions)),
        "answers": answers,
        "target": json.dumps(answers, ensure_ascii=False),
    }
