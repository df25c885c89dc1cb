"""Contract: each element-wise method computes its formula, for any tensors, dtypes and number of agents.

What is written is within one rounding of the output dtype of a float64 reference that shares no code with the engine.
"""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rammerge.engine.options import MergeOptions
from rammerge.rules import resolve
from tests.engine.drawn import close, families, magnitude
from tests.engine.models import as_float64, merge, read, write_family
from tests.rules.elementwise import oracle

Delta = npt.NDArray[np.float32]
Whole = Mapping[str, list[Delta]]  # every agent's task vector, by tensor
Reference = Callable[[Whole, str], oracle.Array]


def localized(density: float, scale: float) -> Reference:
    def reference(whole: Whole, tensor: str) -> oracle.Array:
        vectors = zip(*(whole[name] for name in sorted(whole)), strict=True)
        return oracle.localize_and_stitch(whole[tensor], [oracle.largest(one, density) for one in vectors], scale)

    return reference


CASES: list[tuple[str, dict[str, Any], Reference]] = [
    ("breadcrumbs", {}, lambda whole, name: oracle.breadcrumbs(whole[name], 0.85, 0.006, 1.0)),
    (
        "breadcrumbs",
        {"drop_smallest": 0.3, "drop_largest": 0.2, "scale": 0.5},
        lambda whole, name: oracle.breadcrumbs(whole[name], 0.3, 0.2, 0.5),
    ),
    ("dare_magnitude", {}, lambda whole, name: oracle.dare_magnitude(whole[name], 0.5, False, 1.0)),
    (
        "dare_magnitude",
        {"drop_rate": 0.8, "rescale": True, "scale": 0.3},
        lambda whole, name: oracle.dare_magnitude(whole[name], 0.8, True, 0.3),
    ),
    ("localize_and_stitch", {}, localized(0.05, 1.0)),
    ("localize_and_stitch", {"density": 0.4, "scale": 0.5}, localized(0.4, 0.5)),
    ("consensus", {}, lambda whole, name: oracle.consensus(whole[name], 0.4, 2, 1.0)),
    (
        "consensus",
        {"selectivity": 0.2, "agreeing": 3, "scale": 0.7},
        lambda whole, name: oracle.consensus(whole[name], 0.2, 3, 0.7),
    ),
    ("ram_ties", {}, lambda whole, name: oracle.ram_ties(whole[name], 1e-5, 0.9, 1.0)),
    (
        "ram_ties",
        {"drop_rate": 0.3, "scale": 0.5, "epsilon": 1e-3},
        lambda whole, name: oracle.ram_ties(whole[name], 1e-3, 0.3, 0.5),
    ),
    ("sce", {}, lambda whole, name: oracle.sce(whole[name], 1.0, 1.0)),
    ("sce", {"select": 0.3, "scale": 0.5}, lambda whole, name: oracle.sce(whole[name], 0.3, 0.5)),
]


@pytest.mark.parametrize(("method", "params", "reference"), CASES)
@settings(max_examples=8)
@given(family=families(), dtype=st.sampled_from(["float32", "bfloat16"]))
def test_against_the_float64_reference(
    family: Any, method: str, params: dict[str, Any], reference: Reference, dtype: Any
) -> None:
    base, agents = family
    with tempfile.TemporaryDirectory() as directory:
        models = write_family(Path(directory), base, agents)
        settled = resolve(method, None, params)
        merged = read(merge(*models, settled, Path(directory) / "out", MergeOptions(dtype=dtype)).path)
    before, after = as_float64(base), [as_float64(agent) for agent in agents]
    whole = {name: [(agent[name].float() - base[name].float()).numpy() for agent in agents] for name in base}
    for name, values in merged.items():
        expected = before[name] + reference(whole, name)
        close(values, expected, dtype, magnitude(before[name], [agent[name] for agent in after]))


def one_tensor(tmp_path: Path, deltas: list[list[float]], method: str, **params: Any) -> list[float]:
    """Merge task vectors of one tensor into a base of zeros; return the merged values."""
    base = {"w": torch.zeros(len(deltas[0]))}
    models = write_family(tmp_path, base, [{"w": torch.tensor(delta)} for delta in deltas])
    values: list[float] = read(merge(*models, resolve(method, None, params), tmp_path / "out").path)["w"].tolist()
    return values


def test_the_hand_made_fixture_of_ram_ties(tmp_path: Path) -> None:
    deltas = [[0.1, 0.2, 0, 0, 0.3, 5e-6], [0, 0.4, 0.5, 0, 0.3, 0], [0, 0, -0.1, 0, -0.9, 0]]
    found = one_tensor(tmp_path, deltas, "ram_ties")
    assert found == pytest.approx([0.1, 0.3, 0.5, 0, -0.9, 0])


def test_without_outliers_to_drop_breadcrumbs_keeps_small_tensors(tmp_path: Path) -> None:
    # The slice that drops "the last 0" would be the whole tensor.
    deltas = [[1.0, 2.0, 3.0], [0.5, 0.0, 0.0]]
    assert one_tensor(tmp_path, deltas, "breadcrumbs", drop_smallest=0.0, drop_largest=0.01) == [1.5, 2.0, 3.0]


def test_a_single_agent_agrees_with_itself(tmp_path: Path) -> None:
    assert one_tensor(tmp_path, [[1.0, -2.0, 0.0]], "consensus", agreeing=2) == [1.0, -2.0, 0.0]


def test_disjoint_regions_are_stitched_undiluted(tmp_path: Path) -> None:
    deltas = [[9.0, 8.0, 0.0, 0.0], [0.0, 0.0, 7.0, 6.0]]
    assert one_tensor(tmp_path, deltas, "localize_and_stitch", density=0.25) == [9.0, 8.0, 7.0, 6.0]


def test_small_changes_weigh_agents_as_large_ones_do(tmp_path: Path) -> None:
    deltas = [[3.0, 1.0, 1.0], [1.0, 1.0, 3.0], [0.0, 5.0, 0.0]]
    large = one_tensor(tmp_path / "large", deltas, "sce")
    small = one_tensor(tmp_path / "small", [[value * 2.0**-20 for value in delta] for delta in deltas], "sce")
    assert small == [value * 2.0**-20 for value in large]
    assert large == pytest.approx([(11 * 3 + 11 * 1) / 22, (11 + 11 + 25 * 5) / 47, (11 + 11 * 3) / 22])


def test_a_selection_by_variance_leaves_out_what_agents_agree_on(tmp_path: Path) -> None:
    deltas = [[3.0, 1.0, 2.0, 0.0], [-1.0, 1.0, 1.0, 0.0]]
    assert one_tensor(tmp_path, deltas, "sce", select=0.5) == pytest.approx([3.0, 0.0, 0.0, 0.0])
