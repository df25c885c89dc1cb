"""Compare the suite `bfcl_multi_turn` with the simulators and the checker of BFCL's authors, taken from its wheel.

    rammerge suites fetch bfcl_multi_turn
    python -m benchmarks.bfcl_multi_turn

Both run the right calls of every item, and calls that were changed. Compared are the verdicts, and what every call
tells. Theirs runs in this process, on data of the wheel and calls that are made here, never on a model's.
"""

import copy
import inspect
import json
import random
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.bfcl import written
from benchmarks.verdicts import print_verdicts
from evaluation.suites import bundled_suites, load_suite
from evaluation.suites.bundled.bfcl.calls import Call, calls_in
from evaluation.suites.bundled.bfcl_multi_turn.conversation import User
from evaluation.suites.bundled.bfcl_multi_turn.execution import Worlds
from evaluation.suites.bundled.bfcl_multi_turn.worlds import WORLDS

Turns = list[list[Call]]

_CHANGES = 12


def main() -> None:
    """Print how often both agree, by what was done to the right calls."""
    suite = load_suite("bfcl_multi_turn", progress=print)
    items = [item for file in suite.task_files.values() for item in file.items()]
    (wheel,) = [each.wheel for each in bundled_suites() if each.name == "bfcl_multi_turn" and each.wheel]
    counts: Counter[tuple[str, bool, bool]] = Counter()
    told: Counter[bool] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        zipfile.ZipFile(wheel.path).extractall(folder)
        theirs = _Theirs(Path(folder))
        for item in items:
            for number, (name, turns) in enumerate(_answers(item)):
                ours, accepted = _accepts(item, turns), theirs.accepts(item, turns, number)
                counts[name, ours, accepted] += 1
                told.update(_compare(item, turns, theirs.told(item, turns, number)))
                if ours != accepted:
                    print(f"{item['id']} {name}: ours {ours}: {turns}")
    print_verdicts(counts, "calls")
    print(f"{told[True]} of {told.total()} calls tell the same")


class _Theirs:
    """The checker of the wheel that was unpacked in `folder`. Its worlds live as long as the process, by names."""

    def __init__(self, folder: Path) -> None:
        sys.path.insert(0, str(folder))
        place = "bfcl_eval.eval_checker.multi_turn_eval"
        self._check = import_module(f"{place}.multi_turn_checker").multi_turn_checker
        self._execute = import_module(f"{place}.multi_turn_utils").execute_multi_turn_func_call
        data = folder / "bfcl_eval" / "data"
        self._entries = {line["id"]: line for file in data.glob("BFCL_v4_multi_turn_*.json") for line in _lines(file)}
        answers = (data / "possible_answer").glob("BFCL_v4_multi_turn_*.json")
        self._right = {line["id"]: line["ground_truth"] for file in answers for line in _lines(file)}

    def accepts(self, item: dict[str, Any], turns: Turns, number: int) -> bool:
        """Return whether it takes the calls for right, each of which is a step of its own."""
        name = item["id"]
        decoded = [[[_text(call)] for call in calls] for calls in turns]
        entry = copy.deepcopy(self._entries[name])
        return bool(self._check(decoded, self._right[name], entry, "", f"model{number}")["valid"])

    def told(self, item: dict[str, Any], turns: Turns, number: int) -> list[str]:
        """Return what each call tells."""
        entry = self._entries[item["id"]]
        calls = [_text(call) for turn in turns for call in turn]
        name, long = f"told{number}", "long_context" in item["id"]
        worlds = entry["initial_config"], entry["involved_classes"]
        results, _ = self._execute(calls, *worlds, name, item["id"], long_context=long)
        return list(results)


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    return map(json.loads, file.read_text("utf-8").splitlines())


def _text(call: Call) -> str:
    """Return a call as their decoder writes it."""
    return written([call])[1:-1]


def _accepts(item: dict[str, Any], turns: Turns) -> bool:
    """Return whether our environment takes the calls for right, each in an answer of its own."""
    user = User()
    user.reset(item)
    for calls in turns:
        for call in calls:
            user.step(written([call]))
        if (score := user.step("That is all.").score) is not None:
            return score == 1.0
    raise AssertionError("the conversation goes on after its last request")


def _compare(item: dict[str, Any], turns: Turns, theirs: list[str]) -> Iterator[bool]:
    parsed = [call for turn in turns for each in turn for call in calls_in(written([each])) or []]
    ours = Worlds(item["initial"]).run([(name, (), given) for name, given in parsed])
    for call, one, other in zip(parsed, ours, theirs, strict=True):
        yield one == other
        if one != other:
            print(f"{item['id']} {_text(call)}\n    ours   {one[:200]}\n    theirs {other[:200]}")


def _answers(item: dict[str, Any]) -> Iterator[tuple[str, Turns]]:
    """Yield the right calls, and changed ones by what was done."""
    right = [[_by_name(item, *call) for call in calls] for calls in item["right_calls"]]
    yield "right", right
    for number in range(_CHANGES):
        rng = random.Random(f"{item['id']} {number}")
        turns = copy.deepcopy(right)
        change = _CHANGED[number % len(_CHANGED)]
        change(rng, turns, item)
        yield change.__name__.strip("_"), turns


def _by_name(item: dict[str, Any], name: str, positional: list[Any], named: dict[str, Any]) -> Call:
    world = next(WORLDS[world] for world in json.loads(item["initial"]) if hasattr(WORLDS[world], name))
    parameters = list(inspect.signature(getattr(world, name)).parameters)[1:]
    return name, dict(zip(parameters, positional, strict=False)) | named


def _some(rng: random.Random, turns: Turns) -> list[Call]:
    """Return the calls of a turn with some."""
    return rng.choice([calls for calls in turns if calls])


def _reordered(rng: random.Random, turns: Turns, _item: dict[str, Any]) -> None:
    rng.shuffle(_some(rng, turns))


def _twice(rng: random.Random, turns: Turns, _item: dict[str, Any]) -> None:
    calls = _some(rng, turns)
    calls.insert(rng.randrange(len(calls) + 1), copy.deepcopy(rng.choice(calls)))


def _without(rng: random.Random, turns: Turns, _item: dict[str, Any]) -> None:
    calls = _some(rng, turns)
    calls.pop(rng.randrange(len(calls)))


def _other(rng: random.Random, turns: Turns, item: dict[str, Any]) -> None:
    """Replace a value by one that is near to it, or by one of the item's."""
    _, given = rng.choice(_some(rng, turns))
    if given:
        key = rng.choice(sorted(given))
        value = given[key]
        near = [str(value), value + 1] if isinstance(value, int | float) else [f"{value} ", str(value).upper(), 3]
        given[key] = rng.choice([*near, *_values(item)])


def _earlier(rng: random.Random, turns: Turns, _item: dict[str, Any]) -> None:
    """Do in the first turn what belongs into another."""
    calls = _some(rng, turns)
    turns[0].append(calls.pop(0))


def _any(rng: random.Random, turns: Turns, item: dict[str, Any]) -> None:
    """Add calls of any functions with any values."""
    values = _values(item)
    for _ in range(4):
        world = WORLDS[rng.choice(sorted(json.loads(item["initial"])))]
        name = rng.choice([name for name in vars(world) if not name.startswith("_")])
        parameters = list(inspect.signature(getattr(world, name)).parameters.values())[1:]
        wanted = [each for each in parameters if each.default is each.empty or rng.random() < 0.5]
        call = (name, {each.name: copy.deepcopy(rng.choice(values)) for each in wanted})
        calls = rng.choice(turns)
        calls.insert(rng.randrange(len(calls) + 1), call)


def _values(item: dict[str, Any]) -> list[Any]:
    """Return values that mean something in an item: of its right calls, and keys and values of its first states."""
    found = [value for calls in item["right_calls"] for _, given, named in calls for value in (*given, *named.values())]
    below: list[Any] = [json.loads(item["initial"])]
    while below:
        content = below.pop()
        if isinstance(content, dict):
            found += [key for key in content if key not in ("type", "contents", "content", "long")]
            below += [value for key, value in content.items() if key not in ("costs", "long")]
        elif isinstance(content, list):
            below += content
        elif content is not None:
            found.append(content)
    return [*found, True, False, 0, 2.5, "first", "2026-01-02", "on", ["driver", "rear_left"], [1, 2, 4]]


_CHANGED: tuple[Callable[[random.Random, Turns, dict[str, Any]], None], ...] = (
    *(_reordered, _twice, _without, _earlier, _other, _other),
    *(_any, _any, _any, _any, _any, _any),
)


if __name__ == "__main__":
    main()
