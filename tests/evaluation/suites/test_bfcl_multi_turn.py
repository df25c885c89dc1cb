"""Contract of `bfcl_multi_turn`: requests are met as BFCL's own checker has it, and no text of a model runs as code.

That checker and its simulators are not a dependency; `python -m benchmarks.bfcl_multi_turn` compares both on all items.
Here is one made-up item, from the files of a wheel to its score.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from evaluation.suites.bundled.bfcl_multi_turn.conversation import User
from evaluation.suites.bundled.bfcl_multi_turn.execution import Worlds
from evaluation.suites.bundled.bfcl_multi_turn.lengthening import lengthened
from evaluation.suites.bundled.bfcl_multi_turn.prepare import items
from evaluation.suites.environment import Reply

WORLDS = "gorilla_file_system math_api message_api ticket_api trading_bot travel_booking posting_api vehicle_control"
STATES = {
    "long_context": "{}",
    "message_api": "{'generated_ids': set(), 'inbox': []}",
    "ticket_api": "{'ticket_queue': [], 'ticket_counter': 1, 'current_user': None}",
    "trading_bot": "{'orders': {1: {}}}",
    "travel_booking": "{}\ndef get_flight_cost():\n    base_costs: dict = {('SFO', 'LAX'): 200}",
    "posting_api": "{}",
    "vehicle_control": "{'engine_state': 'stopped'}",
}
DATA = "bfcl_eval/data"
LINE = {
    "id": "multi_turn_miss_func_0",
    "question": [
        [{"role": "user", "content": "Log in as eva, and open a ticket."}],
        [],
        [{"role": "user", "content": "x"}],
    ],
    "initial_config": {"TicketAPI": {"ticket_counter": 7}},
    "involved_classes": ["TicketAPI"],
    "missed_function": {"1": ["create_ticket"]},
}
RIGHT = [["ticket_login('eva', password='p')"], ["create_ticket(title='a')"], ["get_user_tickets()"]]


@pytest.fixture(scope="module")
def item() -> dict[str, Any]:
    functions = [{"name": name, "description": "d"} for name in ("ticket_login", "create_ticket", "get_user_tickets")]
    described = "".join(json.dumps(function) + "\n" for function in functions).encode()
    source = "bfcl_eval/eval_checker/multi_turn_eval/func_source_code"
    files = {
        f"{DATA}/BFCL_v4_multi_turn_miss_func.json": json.dumps(LINE).encode(),
        f"{DATA}/possible_answer/BFCL_v4_multi_turn_miss_func.json": json.dumps(
            {"id": LINE["id"], "ground_truth": RIGHT}
        ).encode(),
        **{f"{DATA}/multi_turn_func_doc/{world}.json": described for world in WORLDS.split()},
        **{f"{source}/{name}.py": f"DEFAULT_STATE = {state}\n".encode() for name, state in STATES.items()},
    }
    (made,) = [each for of_split in items(files).values() for each in of_split]
    return dict(json.loads(json.dumps(made)))


def play(item: Mapping[str, Any], answers: Sequence[str]) -> list[Reply]:
    user = User()
    user.reset(item)
    return [user.step(answer) for answer in answers]


def test_a_function_that_is_missing_comes_later(item: dict[str, Any]) -> None:
    assert "Log in as eva" in item["prompt"]
    assert "create_ticket" not in item["prompt"]
    assert "create_ticket" in item["requests"][1]


LOGIN, TICKET, LOOK = (
    "[ticket_login(username='eva', password='p')]",
    "[create_ticket(title='a')]",
    "[get_user_tickets()]",
)


@pytest.mark.parametrize(
    ("answers", "score"),
    [
        ([LOGIN, "Done.", TICKET, "Done.", LOOK, "Done."], 1.0),
        ([LOGIN, "", TICKET, LOOK, "", LOOK, "[]"], 1.0),  # what was told before counts, if something is called
        ([LOGIN, "", TICKET, LOOK, "", "I know it."], 0.0),
        (["Done."], 0.0),
        ([TICKET, LOGIN, "Done.", TICKET, "Done.", LOOK, "Done."], 1.0),  # what fails changes nothing
        ([LOGIN, "Done.", TICKET, TICKET, "Done."], 0.0),
        ([LOGIN, "Done.", "[create_ticket(title='b')]", "Done."], 0.0),
        ([LOGIN, "Done.", TICKET, "Done.", "[get_ticket(ticket_id=7)]", "Done."], 0.0),
        ([LOGIN] * 21, 0.0),
    ],
)
def test_requests_are_met_by_states_and_by_what_was_told(
    item: dict[str, Any], answers: list[str], score: float
) -> None:
    replies = play(item, answers)
    assert [reply.score for reply in replies] == [None] * (len(answers) - 1) + [score]


def test_results_are_told_call_by_call(item: dict[str, Any]) -> None:
    (reply,) = play(item, ["[get_ticket(ticket_id=9), ticket_login(username='u', password='p'), logout(now=True)]"])
    first, second, third = reply.text.splitlines()
    assert first == 'get_ticket: {"error": "Ticket with ID 9 not found."}'
    assert second == 'ticket_login: {"success": true}'
    assert third.startswith("logout: Error during execution: ")


def test_an_item_is_the_same_after_a_conversation(item: dict[str, Any]) -> None:
    before = json.dumps(item)
    play(item, [LOGIN, "", TICKET, "[edit_ticket(ticket_id=7, updates={'title': 'b'})]", "", ""])
    assert json.dumps(item) == before


@pytest.mark.parametrize("name", ["__init__", "_find", "state", "__class__", "open", "exec"])
def test_only_functions_of_a_world_can_be_called(name: str, tmp_path: Path) -> None:
    state = {"ticket_queue": [], "ticket_counter": 1, "current_user": None}
    worlds = Worlds(json.dumps({"TicketAPI": state}))
    assert worlds.run([(name, [str(tmp_path / "made"), "w"], {})]) == [
        f"Error during execution: name '{name}' is not defined"
    ]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("power", {"base": 9, "exponent": 10**9}),
        ("square_root", {"number": 2, "precision": 10**12}),
        ("logarithm", {"value": 2, "base": 3, "precision": 10**9}),
    ],
)
def test_no_call_takes_all_time_or_memory(name: str, arguments: dict[str, Any]) -> None:
    (told,) = Worlds(json.dumps({"MathAPI": {}})).run([(name, [], arguments)])
    assert told.startswith("Error during execution: ")


def test_a_directory_cannot_lie_in_itself() -> None:
    root = {"work": {"type": "directory", "contents": {"a": {"type": "directory", "contents": {}}}}}
    worlds = Worlds(json.dumps({"GorillaFileSystem": {"root": root}}))
    refused, found = worlds.run([("cp", ["a", "a"], {}), ("find", [], {})])
    assert "error" in refused
    assert json.loads(found) == {"matches": ["./a"]}


def test_long_conversations_find_more_of_everything() -> None:
    more = {"FILE_CONTENT_EXTENSION": " and more", "FILES_TAIL_USED": ["kept"], "POPULATE_FILE_EXTENSION": ["new"]}
    file = {"type": "file", "content": "all"}
    root = {
        "work": {"type": "directory", "contents": {"kept": file, "a": {"type": "directory", "contents": {"b": file}}}}
    }
    state = lengthened("GorillaFileSystem", {"root": root}, more)
    calls: list[Any] = [("find", [], {}), ("cat", ["kept"], {}), ("cd", ["a"], {}), ("cat", ["b"], {})]
    found, kept, _, longer = Worlds(json.dumps({"GorillaFileSystem": state})).run(calls)
    assert json.loads(found)["matches"] == ["./kept", "./a", "./a/b", "./a/new"]
    assert json.loads(kept) == {"file_content": "all"}
    assert json.loads(longer) == {"file_content": "all and more"}
