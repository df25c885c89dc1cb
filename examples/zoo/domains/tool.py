"""The *tool* domain: pick the function that does what the request asks and call it with the right arguments.

Four functions are offered by signature. Each has one of two names, and so has each parameter, so the names must be read
from the prompt. The request states the intent in different words and then the values, in any order:

    book_taxi(place,hour)
    send_gift(person,item)
    get_weather(city,day)
    ring(who)
    ask:forecast monday paris
    call:get_weather(city=paris,day=monday)

The demonstrator's wrong rule calls the *first* function offered, and passes the values in the order of the request.
"""

import random

from evaluation.suites.bundled.zoo_tool import scoring
from examples.zoo.domains.item import Domain, Item

OFFERED = 4
# kind of value -> (names a parameter of this kind can have, values)
KINDS: dict[str, tuple[tuple[str, str], tuple[str, ...]]] = {
    "city": (("city", "place"), ("paris", "rome", "oslo", "lima", "cairo", "delhi", "tokyo", "quito")),
    "day": (("day", "date"), ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday", "today")),
    "hour": (("hour", "time"), ("dawn", "morning", "noon", "afternoon", "dusk", "evening", "night", "midnight")),
    "person": (("person", "who"), ("ann", "bob", "cleo", "dan", "eve", "finn", "gus", "hana")),
    "item": (("item", "thing"), ("book", "lamp", "chair", "phone", "piano", "tent", "watch", "bread")),
}
# (names the function can have, words that ask for it, kinds of its parameters)
FUNCTIONS: tuple[tuple[tuple[str, str], tuple[str, str], tuple[str, ...]], ...] = (
    (("get_weather", "weather_at"), ("weather", "forecast"), ("city", "day")),
    (("book_taxi", "call_cab"), ("taxi", "ride"), ("city", "hour")),
    (("set_alarm", "add_alarm"), ("alarm", "wake"), ("day", "hour")),
    (("dial", "ring"), ("talk", "speak"), ("person",)),
    (("send_gift", "give"), ("present", "surprise"), ("person", "item")),
    (("buy", "order"), ("get", "need"), ("item",)),
    (("book_flight", "fly"), ("flight", "travel"), ("city", "day")),
    (("invite", "add_guest"), ("meeting", "meet"), ("person", "day", "hour")),
    (("ship", "send_parcel"), ("parcel", "deliver"), ("item", "person", "city")),
    (("get_news", "news_feed"), ("news", "headlines"), ("city",)),
)


def draw(rng: random.Random, turns: int) -> list[Item]:
    """Draw `turns` requests about the same offered functions."""
    offered = rng.sample(FUNCTIONS, OFFERED)
    names = [rng.choice(function[0]) for function in offered]
    parameters = [[rng.choice(KINDS[kind][0]) for kind in function[2]] for function in offered]
    context = "".join(f"{name}({','.join(own)})\n" for name, own in zip(names, parameters, strict=True))
    items = []
    for _ in range(turns):
        asked = rng.randrange(OFFERED)
        _, verbs, kinds = offered[asked]
        values = [rng.choice(KINDS[kind][1]) for kind in kinds]
        mentioned = rng.sample(values, len(values))
        arguments = dict(zip(parameters[asked], values, strict=True))
        misread = {parameter: mentioned[i % len(mentioned)] for i, parameter in enumerate(parameters[0])}
        items.append(
            Item(
                context,
                question=f"ask:{' '.join([rng.choice(verbs), *mentioned])}\ncall:",
                target=_call(names[asked], arguments),
                slip=_call(names[0], misread),
                fields={"function": names[asked], "arguments": arguments},
            )
        )
    return items


def _call(name: str, arguments: dict[str, str]) -> str:
    return f"{name}({','.join(f'{param}={value}' for param, value in arguments.items())})"


def words() -> list[str]:
    """Return every word that the domain writes. Each is one token."""
    found = ["ask:", "call:"]
    for parameters, values in KINDS.values():
        found += [*parameters, *values]
    for names, verbs, _ in FUNCTIONS:
        found += [*names, *verbs]
    return found


DOMAIN = Domain("tool", draw, 3, scoring.score, scoring.MAX_NEW_TOKENS)
