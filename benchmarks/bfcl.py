"""Compare the matching of the suite `bfcl` with the checker of BFCL's authors, on right answers and on changed ones.

    rammerge suites fetch bfcl
    python -m benchmarks.bfcl

Their checker is taken from the wheel that the suite pins, into a temporary directory. It runs in this process, on data
of that wheel and answers that are made here, never on a model's. Its list of models is replaced by a stub.
"""

import copy
import random
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from benchmarks.verdicts import print_verdicts
from evaluation.suites import bundled_suites, load_suite
from evaluation.suites.bundled.bfcl.calls import Call, calls_in
from evaluation.suites.bundled.bfcl.scoring import process_results

_CHANGES = 12  # of each right answer


def main() -> None:
    """Print how often both agree, by what was done to the right answer."""
    suite = load_suite("bfcl", progress=print)
    items = [item for file in suite.task_files.values() for item in file.items()]
    (wheel,) = [bundled.wheel for bundled in bundled_suites() if bundled.name == "bfcl" and bundled.wheel]
    counts: Counter[tuple[str, bool, bool]] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        zipfile.ZipFile(wheel.path).extractall(folder)
        theirs = _Theirs(Path(folder))
        for item in items:
            for name, calls in _answers(item):
                text = written(calls)
                ours = bool(process_results(item, [text])["acc"])
                accepted = theirs.accepts(item, text)
                counts[name, ours, accepted] += 1
                if ours != accepted:
                    print(f"{item['id']} {name}: ours {ours}: {text[:300]}")
    print_verdicts(counts, "answer")


class _Theirs:
    """The checker of the wheel that was unpacked in `folder`."""

    def __init__(self, folder: Path) -> None:
        sys.path.insert(0, str(folder))
        models = ModuleType("bfcl_eval.constants.model_config")
        vars(models)["MODEL_CONFIG_MAPPING"] = {"model": SimpleNamespace(underscore_to_dot=False)}
        sys.modules[models.__name__] = models
        self._check = import_module("bfcl_eval.eval_checker.ast_eval.ast_checker").ast_checker
        self._language = import_module("bfcl_eval.constants.enums").Language.PYTHON

    def accepts(self, item: dict[str, Any], text: str) -> bool:
        """Return whether it takes an answer in Python for right."""
        output = [{name: arguments} for name, arguments in calls_in(text) or []]
        part = item["part"]
        try:
            return bool(self._check(item["functions"], output, item["answers"], self._language, part, "model")["valid"])
        except (AttributeError, TypeError, KeyError):  # it expects lists of dictionaries to hold dictionaries
            return False


def _answers(item: dict[str, Any]) -> Iterator[tuple[str, list[Call]]]:
    """Yield a right answer, and changed ones by what was done."""
    right = [(name, _chosen(allowed)) for answer in item["answers"] for name, allowed in answer.items()]
    yield "right", right
    for number in range(_CHANGES):
        rng = random.Random(f"{item['id']} {number}")
        calls = copy.deepcopy(right)
        change = _CHANGED[number % len(_CHANGED)]
        change(rng, calls)
        yield change.__name__.strip("_"), calls


def _chosen(allowed: Any) -> Any:
    """Return right arguments: the first of the values allowed, where the parameter may not be left out."""
    return {key: _first(values) for key, values in allowed.items() if not _may_be_left_out(values)}


def _may_be_left_out(values: Any) -> bool:
    return isinstance(values, list) and (not values or values[0] == "")


def _first(values: Any) -> Any:
    value = values[0] if isinstance(values, list) else values
    if isinstance(value, dict):
        return _chosen(value)
    if isinstance(value, list):
        return [_chosen(each) if isinstance(each, dict) else each for each in value]
    return value


def written(calls: list[Call]) -> str:
    """Return calls as a model may write them."""
    words = (f"{name}({', '.join(f'{key}={value!r}' for key, value in given.items())})" for name, given in calls)
    return f"[{', '.join(words)}]"


def _reordered(rng: random.Random, calls: list[Call]) -> None:
    rng.shuffle(calls)


def _twice(_rng: random.Random, calls: list[Call]) -> None:
    calls.append(calls[0])


def _without(rng: random.Random, calls: list[Call]) -> None:
    _, given = rng.choice(calls)
    if given:
        del given[rng.choice(sorted(given))]


def _extra(rng: random.Random, calls: list[Call]) -> None:
    rng.choice(calls)[1]["extra"] = 1


def _renamed(rng: random.Random, calls: list[Call]) -> None:
    place = rng.randrange(len(calls))
    calls[place] = (f"{calls[place][0]}_", calls[place][1])


def _other(rng: random.Random, calls: list[Call]) -> None:
    """Replace a value by one that is near to it."""
    _, given = rng.choice(calls)
    if given:
        key = rng.choice(sorted(given))
        given[key] = rng.choice(_NEAR)(given[key])


_NEAR = (
    lambda value: value.upper() if isinstance(value, str) else value,
    lambda value: f"{value} " if isinstance(value, str) else str(value),
    lambda value: value + 1 if isinstance(value, int | float) else value,
    lambda value: float(value) if isinstance(value, int) else value,
    lambda value: int(value) if isinstance(value, float) else value,
    lambda value: [value],
    lambda value: value[::-1] if isinstance(value, list) else [],
    lambda value: {**value, "extra": 1} if isinstance(value, dict) else {},
    lambda value: value[:-1] if isinstance(value, list | str) else None,
    lambda value: tuple(value) if isinstance(value, list) else (value,),
)
_CHANGED = (_reordered, _twice, _without, _extra, _renamed, _other, _other, _other, _other)


if __name__ == "__main__":
    main()
