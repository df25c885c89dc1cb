"""What flights cost."""

from collections.abc import Mapping
from datetime import datetime

CLASSES = {"economy": 1, "business": 2, "first": 5}


def fare(costs: Mapping[str, int], start: str, end: str, date: str, travel_class: str) -> float:
    """Return the price of a flight; ValueError if there is no such route or class.

    `costs` are the least prices of routes, by `FROM-TO`. Dates whose digits have an even sum cost twice as much.
    """
    base = costs.get(f"{start}-{end}")
    if base is None:
        raise ValueError("No available route for the given airports.")
    if travel_class not in CLASSES:
        raise ValueError("Invalid travel class. Options are: economy, business, first.")
    digits = sum(int(character) for character in date if character.isdigit())
    return float(base * CLASSES[travel_class] * (1 if digits % 2 else 2))


def date_in(text: str) -> datetime | None:
    """Return the date that a text is, or None."""
    try:
        return datetime.strptime(text, "%Y-%m-%d")
    except ValueError:
        return None
