"""The conversations of BFCL, from the package of its authors: requests, first states, functions, and right calls."""

import ast
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, zip_longest
from pathlib import PurePosixPath
from typing import Any

from evaluation.suites.bundled.bfcl_multi_turn.lengthening import lengthened
from evaluation.suites.bundled.bfcl_multi_turn.literals import literals
from evaluation.suites.format import Split
from evaluation.suites.making.splitting import split

_VALIDATION = 0.3
_PROMPT = """\
You can call these functions:

{functions}

Do what the user asks. To call functions, answer with the calls and with nothing else, in the form
[function(parameter=value, ...), ...]
You are told their results, and may call more. When you have done what you can, say so without a call.

{request}"""
_MORE = """\
You can call these functions, too:

{functions}

Go on with them."""
# The files of the worlds: of the descriptions of their functions, and of their usual first states.
_FILES = {
    "GorillaFileSystem": "gorilla_file_system",
    "MathAPI": "math_api",
    "MessageAPI": "message_api",
    "TicketAPI": "ticket_api",
    "TradingBot": "trading_bot",
    "TravelAPI": "travel_booking",
    "TwitterAPI": "posting_api",
    "VehicleControlAPI": "vehicle_control",
}
_NO_FILE: dict[str, dict[str, Any]] = {"GorillaFileSystem": {"root": None}, "MathAPI": {}}
_RENAMED = {"engine_state": "engineState", "_parkingBrakeForce": "parkingBrakeForce", "_slopeAngle": "slopeAngle"}


def items(files: Mapping[str, bytes]) -> Mapping[Split, list[dict[str, Any]]]:
    """Return the items by split; those of one scenario, or whose requests are nearly the same, lie in one.

    The parts take turns, so that the first items are a fair sample.
    """
    named = {PurePosixPath(name): content.decode() for name, content in files.items()}
    answers = {
        line["id"]: line["ground_truth"]
        for name, content in named.items()
        if name.parent.name == "possible_answer"
        for line in _lines(content)
    }
    functions = {
        world: list(_lines(_content(named, "multi_turn_func_doc", f"{file}.json"))) for world, file in _FILES.items()
    }
    first = _FirstStates(named)
    parts = [
        [_item(line, functions, first, answers[line["id"]]) for line in _lines(content)]
        for name, content in named.items()
        if name.parent.name == "data"
    ]
    mixed = [item for turn in zip_longest(*parts) for item in turn if item is not None]
    return split(mixed, text="said", share=_VALIDATION, related="scenario")


def _content(named: Mapping[PurePosixPath, str], folder: str, file: str) -> str:
    return next(content for name, content in named.items() if (name.parent.name, name.name) == (folder, file))


def _lines(content: str) -> Iterator[dict[str, Any]]:
    return map(json.loads, content.splitlines())


class _FirstStates:
    """The states in which worlds begin."""

    def __init__(self, named: Mapping[PurePosixPath, str]) -> None:
        self._usual = {world: _usual(named, world) for world in _FILES}
        self._more = literals(_content(named, "func_source_code", "long_context.py"))

    def of(self, line: Mapping[str, Any], world: str) -> dict[str, Any]:
        """Return what an item says of a world, and the usual where it says nothing."""
        state = {**self._usual[world], **line["initial_config"].get(world, {})}
        return lengthened(world, state, self._more) if "long_context" in line["id"] else state


def _usual(named: Mapping[PurePosixPath, str], world: str) -> dict[str, Any]:
    if world in _NO_FILE:
        return _NO_FILE[world]
    known = literals(_content(named, "func_source_code", f"{_FILES[world]}.py"))
    state = {_RENAMED.get(key, key): value for key, value in known["DEFAULT_STATE"].items()}
    if world == "MessageAPI":
        state["generated_ids"] = []  # JSON has no sets
    if world == "TravelAPI":
        state["costs"] = {f"{start}-{end}": cost for (start, end), cost in known["base_costs"].items()}
    return state


def _item(
    line: Mapping[str, Any],
    functions: Mapping[str, Sequence[Mapping[str, Any]]],
    states: _FirstStates,
    right: Sequence[Sequence[str]],
) -> dict[str, Any]:
    worlds = line["involved_classes"]
    offered = {function["name"]: function for world in worlds for function in functions[world]}
    later = {int(turn): names for turn, names in line.get("missed_function", {}).items()}
    hidden = {*line.get("excluded_function", ()), *chain.from_iterable(later.values())}
    said = ["\n\n".join(message["content"] for message in turn) for turn in line["question"]]
    requests = [
        _MORE.format(functions=_shown(offered[name] for name in later[turn])) if turn in later else text
        for turn, text in enumerate(said)
    ]
    first = _shown(function for name, function in offered.items() if name not in hidden)
    return {
        "id": line["id"],
        "scenario": line["id"].rpartition("_")[2],
        "said": "\n".join(said),
        "prompt": _PROMPT.format(functions=first, request=requests[0]),
        "requests": requests,
        "initial": json.dumps({world: states.of(line, world) for world in worlds}),
        "right_calls": [[_call(call) for call in calls] for calls in right],
        "target": "\n".join("; ".join(calls) or "no call" for calls in right),
    }


def _shown(functions: Iterable[Mapping[str, Any]]) -> str:
    return "\n".join(json.dumps(function, ensure_ascii=False) for function in functions)


def _call(text: str) -> tuple[str, list[Any], dict[str, Any]]:
    """Return the name and the arguments of a right call."""
    call = ast.parse(text, mode="eval").body
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise TypeError(f"{text} is no call")
    named = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
    return call.func.id, [ast.literal_eval(value) for value in call.args], named
