"""Contract: names, presets and overrides settle into typed parameters; a mistake is named with the nearest right."""

from typing import Any

import pytest

from rammerge.errors import InputError
from rammerge.rules import METHODS, resolve


def test_presets_are_the_published_ones() -> None:
    chosen = {name: resolve("ram_plus", name).params for name in METHODS["ram_plus"].presets}
    settings = {name: (params["r"], params["alpha"], params["scope"]) for name, params in chosen.items()}
    assert settings == {
        "paper": (0.1, 2.0, "global"),
        "authors-cli": (0.05, 1.0, "global"),
        "authors-readme": (0.2, 1.0, "global"),
        "mergekit": (0.1, 0.2, "tensor"),
    }


@pytest.mark.parametrize("name", METHODS)
def test_defaults_and_every_preset_resolve(name: str) -> None:
    assert resolve(name).params == METHODS[name].params().model_dump()
    for preset in METHODS[name].presets:
        assert resolve(name, preset).preset == preset
        assert preset in METHODS[name].preset_sources


def test_overrides_go_over_presets() -> None:
    method = resolve("ram_plus", "mergekit", {"alpha": 1.5})
    assert (method.params["alpha"], method.params["scope"]) == (1.5, "tensor")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ram_puls",), r"unknown method 'ram_puls' \(did you mean 'ram_plus'\?\)"),
        (("ram_plus", "papre"), r"no preset 'papre' \(did you mean 'paper'\?\)"),
        (("ram_plus", None, {"aplha": 1}), r"no parameter 'aplha' \(did you mean 'alpha'\?\)"),
        (("ram_plus", None, {"r": -1}), r"parameter 'r' of method 'ram_plus'.*at least 0, not -1"),
        (("ties", None, {"density": "much"}), r"parameter 'density' of method 'ties'.*not 'much'"),
        (("average", None, {"scale": 1}), r"its parameters: none"),
        (
            ("dare", None, {"drop_rate": 1 - 1e-9}),
            r"^parameter 'drop_rate' of method 'dare': is 1 in float32",
        ),
        (
            ("breadcrumbs", None, {"drop_smallest": 0.6, "drop_largest": 0.4}),
            r"^method 'breadcrumbs': drop_smallest and drop_largest together leave nothing; make their sum less than 1",
        ),
        (
            ("della", None, {"drop_rate": 0.05}),
            r"^method 'della': .* from -0.02 to 0.12; keep these from 0",
        ),
    ],
)
def test_mistakes_are_named(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve(*arguments)
