"""Contract: a record counts as what its steps put out, so that an upgrade which adds to it repeats no step."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from rammerge.recipe import Recipe
from tasks.records.record import Record
from tasks.steps.overlap import OverlapResult
from tests.fixtures.pipeline import World


class LaterRecipe(Recipe):
    """A recipe with one more key."""

    added: int = 5


class LaterRecord(Record):
    """A record with one more part."""

    added: Mapping[str, str] = {}


def test_what_a_later_release_adds_changes_nothing_where_it_is_not_used(tmp_path: Path) -> None:
    written = yaml.safe_load(World(tmp_path).recipe.read_text())
    parts: dict[str, Any] = {name: {} for name in ("sources", "methods", "variants", "smoked")}
    parts |= {"suites": [], "judged": None, "overlap": OverlapResult.model_construct(digest="d")}
    now = Record.model_construct(recipe=Recipe.model_validate(written), started=1.0, **parts)
    later = LaterRecord.model_construct(recipe=LaterRecipe.model_validate(written), started=2.0, **parts)
    assert later.identity == now.identity
    assert later.model_copy(update={"added": {"a": "b"}}).identity != now.identity
    changed = Recipe.model_validate(written | {"gates": []})
    assert now.model_copy(update={"recipe": changed}).identity != now.identity
