"""The first states of BFCL's part `long_context`: worlds that tell much more than is asked for.

What they tell in addition are literals in a source of BFCL's authors.
"""

from collections.abc import Callable, Mapping
from typing import Any

State = dict[str, Any]


def lengthened(world: str, state: State, more: State) -> State:
    """Return the first state of a world, with more of the literals in it; `long` is for its functions to tell."""
    change = _CHANGES.get(world)
    return state if change is None else change(state, more)


def _files(state: State, more: State) -> State:
    if not state["root"]:
        return state
    name, top = next(iter(state["root"].items()))
    return {"root": {name: {**top, "contents": _filled(top["contents"], more)}}}


def _filled(contents: Mapping[str, Any], more: Mapping[str, Any]) -> State:
    """Return a directory's content with longer files, and where there is no directory in it with more files."""
    found: State = {}
    for name, entry in contents.items():
        if entry["type"] == "directory":
            found[name] = {**entry, "contents": _filled(entry["contents"], more)}
        else:
            tail = "" if name in more["FILES_TAIL_USED"] else more["FILE_CONTENT_EXTENSION"]
            found[name] = {**entry, "content": entry["content"] + tail}
    if all(entry["type"] != "directory" for entry in contents.values()):
        found |= {name: {"type": "file", "content": ""} for name in more["POPULATE_FILE_EXTENSION"]}
    return found


def _trading(state: State, more: State) -> State:
    long = {
        "averages": {"MA(5)": more["MA_5_EXTENSION"], "MA(20)": more["MA_20_EXTENSION"]},
        "order": more["ORDER_DETAIL_EXTENSION"],
        "watched": [name for name in more["WATCH_LIST_EXTENSION"] if name is not ...],
        "transactions": more["TRANSACTION_HISTORY_EXTENSION"],
        "stocks": {
            "Technology": more["TECHNOLOGY_EXTENSION"],
            "Automobile": more["AUTOMOBILE_EXTENSION"],
        },
    }
    return {**state, "long": long}


def _travel(state: State, more: State) -> State:
    own_cards, own_bookings = state["credit_card_list"], state["booking_record"]
    cards, bookings = more["CREDIT_CARD_EXTENSION"], more["BOOKING_RECORD_EXTENSION"]
    return {  # the item's own come first, and count where both have one
        **state,
        "credit_card_list": own_cards | cards | own_cards,
        "booking_record": own_bookings | bookings | own_bookings,
        "long": True,
    }


def _vehicle(state: State, more: State) -> State:
    long = {
        "weather": more["LONG_WEATHER_EXTENSION"],
        "car": more["CAR_STATUS_METADATA_EXTENSION"],
        "brake": {"parkingBrakeInstruction": more["PARKING_BRAKE_INSTRUCTION"]},
        "cities": {"intermediaryCities": more["INTERMEDIARY_CITIES"]},
    }
    return {**state, "long": long}


_CHANGES: dict[str, Callable[[State, State], State]] = {
    "GorillaFileSystem": _files,
    "TradingBot": _trading,
    "TravelAPI": _travel,
    "VehicleControlAPI": _vehicle,
}
