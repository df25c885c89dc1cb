"""Contract: what is hidden from imports is not found while it is hidden, and is what it was afterwards."""

import importlib
import sys

import pytest

from rammerge.system.optional import without


def test_a_package_is_not_found_while_it_is_hidden_and_found_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    with pytest.raises(ImportError), without("colorsys"):
        importlib.import_module("colorsys")
    assert importlib.import_module("colorsys").rgb_to_hsv(0, 0, 0) == (0, 0, 0)


def test_a_package_that_is_imported_already_stays() -> None:
    with without("json"):
        assert importlib.import_module("json") is sys.modules["json"] is not None
