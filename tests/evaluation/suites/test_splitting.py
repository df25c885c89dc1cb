"""Contract: items that say nearly the same, or that are declared related, lie in one split and are one group."""

import random
from typing import Any

from evaluation.suites.making.splitting import split


def made(count: int) -> list[dict[str, Any]]:
    rng = random.Random("items")
    return [
        {"id": f"i{n}", "text": " ".join(rng.choices("abcdefghijklmnop", k=30)), "kind": n // 2} for n in range(count)
    ]


def test_every_item_is_in_one_split_and_the_share_is_about_right() -> None:
    items = made(200)
    found = split(items, text="text", share=0.4)
    assert sorted(item["id"] for of_split in found.values() for item in of_split) == sorted(i["id"] for i in items)
    assert 78 <= len(found["validation"]) <= 82
    assert found == split(items, text="text", share=0.4)


def test_near_duplicates_stay_together() -> None:
    items = made(100)
    twins = [{**item, "id": f"twin of {item['id']}", "text": item["text"] + " q"} for item in items]
    found = split([*items, *twins], text="text", share=0.4)
    sides = {item["id"]: side for side, of_split in found.items() for item in of_split}
    assert all(sides[item["id"]] == sides[f"twin of {item['id']}"] for item in items)
    groups = {item["id"]: item["group"] for of_split in found.values() for item in of_split}
    assert groups["twin of i3"] == groups["i3"] == "i3"


def test_different_items_are_different_groups() -> None:
    found = split(made(50), text="text", share=0.5)
    assert all(item["group"] == item["id"] for of_split in found.values() for item in of_split)


def test_declared_relatives_stay_together() -> None:
    found = split(made(60), text="text", share=0.5, related="kind")
    kinds = [{item["kind"] for item in of_split} for of_split in found.values()]
    assert kinds[0] & kinds[1] == set()
