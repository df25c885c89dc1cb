"""Contract: an imported configuration of mergekit merges to what mergekit's formulas give; the rest is refused by name.

The formulas are written here anew, by tensor and in float64. The configurations have the forms of mergekit's examples.
"""

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import yaml

from rammerge.errors import InputError
from rammerge.recipe import load
from rammerge.recipe.mergekit import translate
from rammerge.recipe.mergekit_methods import METHODS, NO_EQUAL
from rammerge.rules import resolve
from tests.engine.models import merge, read, write_family

Array = npt.NDArray[np.float64]
Formula = Callable[[list[Array], list[float]], Array]

AGENTS = ("one", "two", "three")


def config(method: str, weights: list[float] | None = None, **parameters: Any) -> dict[str, Any]:
    """Return a configuration with the base among the models, as mergekit's examples write it."""
    models: list[dict[str, Any]] = [{"model": f"./{name}"} for name in AGENTS]
    for model, weight in zip(models, weights or [], strict=False):
        model["parameters"] = {"weight": weight}
    content = {"models": [{"model": "./base"}, *models], "merge_method": method, "base_model": "./base"}
    return content | ({"parameters": parameters} if parameters else {})


def kept(delta: Array, count: int, largest: int = 0) -> Array:
    """Keep a number of elements by magnitude, after the largest ones."""
    order = np.argsort(-np.abs(delta))[largest : largest + count]
    mask = np.zeros_like(delta)
    mask[order] = 1
    return delta * mask


def agreeing(deltas: list[Array]) -> Array:
    stacked = np.stack(deltas)
    majority = np.where(stacked.sum(0) >= 0, 1, -1)
    return np.asarray((np.sign(stacked) == majority) * stacked)


def trimmed(delta: Array, density: float) -> Array:
    # One more than mergekit keeps, as a note of the import says.
    return kept(delta, int(density * delta.size) + 1)


def ties_mean(deltas: list[Array], density: float) -> Array:
    chosen = agreeing([trimmed(delta, density) for delta in deltas])
    return np.asarray(chosen.sum(0) / np.maximum((chosen != 0).sum(0), 1))


def ties_sum(deltas: list[Array], weights: list[float], density: float) -> Array:
    parts = [w * trimmed(delta, density) for w, delta in zip(weights, deltas, strict=True)]
    return np.asarray(agreeing(parts).sum(0))


def weighted(deltas: list[Array], weights: list[float]) -> Array:
    return np.asarray(sum(w * delta for w, delta in zip(weights, deltas, strict=True)))


def crumbs(deltas: list[Array], weights: list[float], density: float, gamma: float) -> Array:
    size = deltas[0].size
    return weighted([kept(delta, int(density * size), int(gamma * size)) for delta in deltas], weights)


def stock(deltas: list[Array]) -> Array:
    pairs = [(a, b) for index, a in enumerate(deltas) for b in deltas[index + 1 :]]
    cosine = np.mean([a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs])
    count = len(deltas)
    return np.asarray(count * cosine / (1 + (count - 1) * cosine) * np.mean(deltas, axis=0))


def ram(deltas: list[Array], r: float, alpha: float) -> Array:
    stacked = np.stack(deltas)
    active = np.abs(stacked) > 1e-5
    shared, unique = active & (active.sum(0) > 1), active & (active.sum(0) == 1)
    rho = shared.sum(1) / np.maximum(unique.sum(1), 1e-5)
    factor = (1 + r * np.clip(rho, 0, alpha))[:, None]
    return np.asarray((stacked * unique * factor + stacked * shared / np.maximum(active.sum(0), 1)).sum(0))


def multi_slerp(deltas: list[Array]) -> Array:
    lengths = [np.linalg.norm(delta) for delta in deltas]
    mean = np.mean([delta / length for delta, length in zip(deltas, lengths, strict=True)], axis=0)
    return np.asarray(mean / np.linalg.norm(mean) * np.mean(lengths))


UNEQUAL, EQUAL = [0.5, 0.3, 0.7], [0.4, 0.4, 0.4]
CASES: list[tuple[dict[str, Any], Formula]] = [
    (config("task_arithmetic", UNEQUAL), lambda deltas, w: weighted(deltas, w)),
    (config("task_arithmetic", UNEQUAL, **{"lambda": "5e-1"}), lambda deltas, w: 0.5 * weighted(deltas, w)),
    (config("task_arithmetic", UNEQUAL, normalize=True), lambda deltas, w: weighted(deltas, w) / sum(w)),
    (config("ties", EQUAL, density=0.5, **{"lambda": 0.9}), lambda deltas, _: 0.9 * ties_mean(deltas, 0.5)),
    (config("ties", UNEQUAL, density=0.5, normalize=False), lambda deltas, w: ties_sum(deltas, w, 0.5)),
    (config("breadcrumbs", UNEQUAL, density=0.6, gamma=0.05), lambda deltas, w: crumbs(deltas, w, 0.6, 0.05)),
    (config("breadcrumbs", UNEQUAL, density=1.0, gamma=0.05), lambda deltas, w: weighted(deltas, w)),
    (config("ram"), lambda deltas, _: ram(deltas, 0.0, 1.0)),
    (config("ramplus_tl", r=0.2, alpha=0.5), lambda deltas, _: ram(deltas, 0.2, 0.5)),
    (config("model_stock"), lambda deltas, _: stock(deltas)),
    (config("multislerp", EQUAL), lambda deltas, _: multi_slerp(deltas)),
]


def family() -> tuple[dict[str, torch.Tensor], list[dict[str, torch.Tensor]]]:
    """Agents of one direction and many of their own, dense in one tensor and sparse in the other; no equal changes."""
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    base = {"a.weight": draw(40, 25), "b.weight": draw(400)}
    common = {name: 0.05 * draw(*values.shape) for name, values in base.items()}
    agents = [
        {
            "a.weight": base["a.weight"] + common["a.weight"] + 0.05 * draw(40, 25),
            "b.weight": base["b.weight"] + (draw(400) > 0) * (common["b.weight"] + 0.05 * draw(400)),
        }
        for _ in AGENTS
    ]
    return base, agents


@pytest.mark.parametrize(
    ("content", "formula"), CASES, ids=lambda case: case.get("merge_method") if isinstance(case, dict) else ""
)
def test_an_imported_merge_follows_mergekits_formula(
    content: Mapping[str, Any], formula: Formula, tmp_path: Path
) -> None:
    base, agents = family()
    imported = translate(content, "mergekit.yml")
    assert imported.base == "./base" and list(imported.agents.values()) == [f"./{name}" for name in AGENTS]
    opened_base, opened = write_family(tmp_path, base, agents)
    named = dict(zip(imported.agents, opened.values(), strict=True))
    asked = imported.merge
    settled = resolve(asked["method"], asked.get("preset"), asked.get("params", {}), weights=asked.get("weights", {}))
    found = read(merge(opened_base, named, settled, tmp_path / "out").path)
    weights = [model.get("parameters", {}).get("weight", 1.0) for model in content["models"][1:]]
    for name, before in base.items():
        deltas = [(agent[name].double() - before.double()).numpy().ravel() for agent in agents]
        expected = before.double().numpy().ravel() + formula(deltas, weights)
        assert np.allclose(found[name].double().numpy().ravel(), expected, atol=2e-6), name


def test_a_linear_merge_is_one_of_differences_from_its_first_model(tmp_path: Path) -> None:
    base, agents = family()
    models = [base, *agents]
    weights = [0.4, 0.5, 0.3, 0.8]
    content = {
        "models": [{"model": f"org/m{n}", "parameters": {"weight": w}} for n, w in enumerate(weights)],
        "merge_method": "linear",
        "dtype": "bfloat16",
    }
    imported = translate(content, "linear.yml")
    assert imported.base == "org/m0" and list(imported.agents) == ["m1", "m2", "m3"]
    assert imported.output == {"dtype": "bfloat16"}
    opened_base, opened = write_family(tmp_path, base, agents)
    named = dict(zip(imported.agents, opened.values(), strict=True))
    asked = imported.merge
    settled = resolve(asked["method"], None, asked["params"], weights=asked["weights"])
    found = read(merge(opened_base, named, settled, tmp_path / "out").path)
    for name in base:
        mean = sum(w * model[name].double() for w, model in zip(weights, models, strict=True)) / sum(weights)
        assert np.allclose(found[name].double().numpy(), np.asarray(mean), atol=2e-6)


@pytest.mark.parametrize(
    ("method", "given", "merged"),
    [
        ("dare_linear", {"density": 0.1}, {"method": "dare", "params": {"drop_rate": 0.9, "scale": 1.0}}),
        (
            "dare_ties",
            {"density": 0.5},
            {"method": "dare_ties", "params": {"drop_rate": 0.5, "density": 1.0, "scale": 1.0, "merge": "sum"}},
        ),
        (
            "della_linear",
            {"density": 0.7, "epsilon": 0.1},
            {"method": "della", "params": {"drop_rate": 0.3, "window": 0.2, "scale": 1.0, "merge": "sum"}},
        ),
        (
            "della",
            {"density": 0.7},
            {"method": "della", "params": {"drop_rate": 0.3, "window": 0.3, "scale": 1.0, "merge": "ties"}},
        ),
    ],
)
def test_random_masks_have_the_same_probabilities(method: str, given: dict[str, Any], merged: dict[str, Any]) -> None:
    imported = translate(config(method, [1.0, 1.0, 1.0], **given), "mergekit.yml")
    assert imported.merge == merged
    assert "masks are random" in imported.notes[0]
    resolve(merged["method"], None, merged["params"])


REFUSED: list[tuple[dict[str, Any], str]] = [
    *((config(method), f"the method {method} has no equal in a recipe") for method in NO_EQUAL),
    (config("tise"), "unknown merge_method 'tise' (did you mean 'ties'?)"),
    ({"slices": [{}], "merge_method": "slerp"}, "`slices` takes layers of several models"),
    (config("ram") | {"chat_template": "chatml"}, "the key chat_template has no equal"),
    (config("ram") | {"modules": {"text": {}}}, "`modules` takes parts of a model"),
    (config("ram") | {"dtype": "float64"}, "the dtype float64 is none of"),
    (config("ram") | {"tokenizer_source": "union"}, "'union' is not a model of the merge"),
    (config("ram") | {"tokenizer": {"source": "base", "pad_to_multiple_of": 8}}, "knows the source alone"),
    (config("ram") | {"base_model": None}, "ram needs a base_model"),
    (config("ram") | {"models": [{"model": "./base"}]}, "no model besides the base"),
    (config("ram") | {"models": []}, "`models` is empty"),
    (config("ram") | {"models": ["./one"]}, "`models` must be a list of entries with `model`"),
    (config("ram") | {"models": [{"model": "org/base+org/lora"}]}, "takes the adapter itself as an agent"),
    (config("ram", epsilom=1.0), "the parameter epsilom has no equal"),
    (config("ram") | {"parameters": [1]}, "`parameters` must be names with values"),
    (config("ram", epsilon="small"), "epsilon is 'small' and must be a number"),
    (config("task_arithmetic"), "each model needs the parameter weight"),
    (config("task_arithmetic", EQUAL, **{"lambda": [0.0, 1.0]}), "lambda varies over layers or tensors"),
    (config("ties", UNEQUAL), "give equal weights, or `normalize: false`"),
    (config("ties", EQUAL, rescale=True), "`rescale` has no equal"),
    (config("ties", EQUAL, normalize="yes"), "normalize is 'yes' and must be true or false"),
    (config("dare_ties", EQUAL, rescale=False), "without `rescale` dropped elements are not made up for"),
    (config("della", EQUAL, normalize=False), "della here averages them"),
    (config("model_stock", filter_wise=True), "`filter_wise` has no equal"),
    (config("multislerp", UNEQUAL), "weighs all directions equally"),
    ({"models": [{"model": "a", "parameters": {"weight": 2}}], "merge_method": "linear"}, "no model besides the base"),
    ({"weights": 1}, "is not a configuration of mergekit"),
]


@pytest.mark.parametrize(("content", "words"), REFUSED)
def test_what_has_no_equal_is_refused_by_name(content: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as refused:
        translate(content, "mergekit.yml")
    assert words in str(refused.value) and str(refused.value).startswith("mergekit.yml")


def test_every_method_of_mergekit_is_known_here() -> None:
    assert not METHODS.keys() & NO_EQUAL.keys()
    assert len(METHODS) + len(NO_EQUAL) == 21


def test_names_are_made_of_sources() -> None:
    content = config("ram") | {
        "models": [{"model": name} for name in ("org/agent@main", "other/agent", "./base", "../", "x/ä ö")]
    }
    imported = translate(content, "mergekit.yml")
    assert imported.agents == {
        "agent": "org/agent@main",
        "agent-2": "other/agent",
        "agent-3": "../",
        "agent-4": "x/ä ö",
    }
    assert translate(content | {"tokenizer_source": "other/agent"}, "m").output == {"tokenizer": "agent-2"}
    assert translate(content | {"tokenizer": {"source": "./base"}}, "m").output == {}


def command(*arguments: str, directory: Path | None = None) -> "subprocess.CompletedProcess[str]":
    words = [sys.executable, "-m", "rammerge", "import", *arguments]
    return subprocess.run(words, capture_output=True, text=True, check=False, cwd=directory)


def test_the_command_writes_a_recipe_that_loads(tmp_path: Path) -> None:
    source, out = tmp_path / "my merge.yml", tmp_path / "recipe.yaml"
    content = config("ties", EQUAL, density=0.5) | {"dtype": "bfloat16", "tokenizer_source": "./two"}
    source.write_text(yaml.safe_dump(content))
    done = command(str(source), "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("note: trimming keeps one change more")
    recipe = load(out)
    assert (recipe.name, recipe.output.dtype, recipe.output.tokenizer) == ("my-merge", "bfloat16", "two")
    (variant,) = recipe.variants()
    assert variant.params == {"density": 0.5, "scale": 1.0, "scope": "tensor"}
    again = command(str(source), "--out", str(out))
    assert again.returncode == 2 and "--force" in again.stderr
    assert command(str(source), "--out", str(out), "--force").returncode == 0


def test_paths_from_the_working_directory_are_paths_from_the_recipe(tmp_path: Path) -> None:
    work = tmp_path / "here"
    (work / "one").mkdir(parents=True)
    (work / "mergekit.yml").write_text(yaml.safe_dump(config("ram")))
    assert command("mergekit.yml", "--out", "../recipe.yaml", directory=work).returncode == 0
    sources = {name: agent.source for name, agent in load(tmp_path / "recipe.yaml").agents.items()}
    assert sources == {"one": "./here/one", "two": "./two", "three": "./three"}


@pytest.mark.parametrize("text", ["a: [", "- 1", "\x00", "merge_method: slerp\nslices: [1]"])
def test_the_command_refuses_in_one_sentence(text: str, tmp_path: Path) -> None:
    source = tmp_path / "mergekit.yml"
    source.write_text(text)
    done = command(str(source), "--out", str(tmp_path / "recipe.yaml"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {source}") and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "recipe.yaml").exists()
    missing = command(str(tmp_path / "nowhere.yml"))
    assert missing.returncode == 2 and "does not exist; check the path" in missing.stderr
