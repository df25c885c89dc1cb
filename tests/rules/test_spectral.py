"""Contract: methods on whole matrices give what their published formulas give by singular value decomposition.

And the algebra that the formulas imply holds, also where the published code fills up with arbitrary directions: for
agents that are alike, that did not change a matrix, or that changed it in few directions.
"""

import pytest
import torch
from torch import Tensor

from rammerge.errors import InputError
from tests.rules.spectral import FORMULAS, drawn, merged

SHAPES = [(24, 40), (40, 24), (31, 33)]


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-6) -> None:
    """Assert a relative error in the Frobenius norm."""
    assert float((found - expected).norm()) <= tolerance * float(expected.norm())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("agents", [1, 2, 3, 5])
@pytest.mark.parametrize("method", FORMULAS)
def test_the_published_formula(method: str, agents: int, shape: tuple[int, int]) -> None:
    matrices = drawn(shape, agents)
    close(merged(method, matrices), FORMULAS[method](matrices))
    close(merged(method, matrices, scale=0.3), 0.3 * FORMULAS[method](matrices))


@pytest.mark.parametrize("method", sorted(FORMULAS.keys() - {"wudi_adam"}))  # Adam takes each element by itself
def test_order_scale_and_rotation(method: str) -> None:
    matrices = drawn((24, 40), 3)
    expected = merged(method, matrices)
    close(merged(method, matrices[::-1]), expected, 1e-9)
    close(merged(method, [1e3 * matrix for matrix in matrices]), 1e3 * expected, 1e-9)
    turn, _ = torch.linalg.qr(drawn((24, 24), 1, seed=1)[0])
    other, _ = torch.linalg.qr(drawn((40, 40), 1, seed=2)[0])
    close(merged(method, [turn @ matrix @ other for matrix in matrices]), turn @ expected @ other, 1e-8)


@pytest.mark.parametrize("method", ["iso_c", "tsv_m", "resmerge"])  # the others tell outputs from inputs
def test_transposed_matrices_give_the_transposed_result(method: str) -> None:
    matrices = drawn((24, 40), 3)
    close(merged(method, [matrix.T for matrix in matrices]).T, merged(method, matrices), 1e-9)


@pytest.mark.parametrize("method", FORMULAS)
def test_a_matrix_that_nobody_changed_stays(method: str) -> None:
    assert not merged(method, [torch.zeros(4, 6, dtype=torch.float64)] * 2).any()


def test_tsv_of_one_agent_is_that_agent() -> None:
    (matrix,) = drawn((24, 40), 1)
    close(merged("tsv_m", [matrix]), matrix, 1e-12)


def test_tsv_of_agents_in_rows_and_columns_of_their_own_is_their_sum() -> None:
    left, right = drawn((10, 16), 2)
    one, other = torch.zeros(2, 20, 32, dtype=torch.float64)
    one[:10, :16], other[10:, 16:] = left, right
    close(merged("tsv_m", [one, other]), one + other, 1e-9)


@pytest.mark.parametrize("noise", [0.0, 1e-13])
def test_tsv_of_identical_agents_is_the_best_part_of_them(noise: float) -> None:
    (matrix,) = drawn((24, 40), 1)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    best = (left[:, :8] * values[:8]) @ right[:8]
    close(merged("tsv_m", [matrix, matrix, matrix * (1 + noise)]), best, 1e-6)


def test_an_agent_that_changed_nothing_takes_no_part() -> None:
    matrices = drawn((24, 40), 2)
    nothing = torch.zeros_like(matrices[0])
    for method in FORMULAS:
        if method not in ("iso_cts", "resmerge"):  # these count all agents
            close(merged(method, [matrices[0], nothing, matrices[1]]), merged(method, matrices), 1e-12)


def test_few_directions_stay_few() -> None:
    # The published code gives all other directions, which are arbitrary, the same weight.
    left, right = drawn((24, 3), 2)[0], drawn((3, 40), 2)[0]
    low = left @ right
    found = merged("iso_c", [low])
    assert int(torch.linalg.matrix_rank(found)) == 3
    values = torch.linalg.svdvals(low)
    assert torch.linalg.svdvals(found)[:3].tolist() == pytest.approx([float(values.sum()) / 24] * 3)
    close(merged("tsv_m", [low, low * 2]), merged("tsv_m", [low * 2, low]), 1e-9)


def test_iso_of_orthogonal_matrices_is_their_sum() -> None:
    turn, _ = torch.linalg.qr(drawn((24, 24), 1)[0])
    close(merged("iso_c", [turn]), turn, 1e-12)
    close(merged("iso_cts", drawn((24, 40), 3), common=1.0), merged("iso_c", drawn((24, 40), 3)), 1e-9)


def loss(merged: Tensor, matrices: list[Tensor]) -> float:
    """Return WUDI's loss."""
    return sum(float(((merged - matrix) @ matrix.T).norm() ** 2 / matrix.norm() ** 2) for matrix in matrices)


@pytest.mark.parametrize("shape", [(24, 40), (40, 24)])
def test_a_ridge_that_is_lost_in_rounding_is_refused(shape: tuple[int, int]) -> None:
    (matrix,) = drawn(shape, 1)
    matrix[:, 12:] = matrix[:, :12].repeat(1, shape[1] // 12)[:, : shape[1] - 12]
    with pytest.raises(InputError, match="with the ridge 1e-30, because rows of the task vectors are nearly parallel"):
        merged("wudi", [matrix, matrix], ridge=1e-30)


@pytest.mark.parametrize("shape", SHAPES)
def test_wudi_disturbs_less_than_sum_and_mean(shape: tuple[int, int]) -> None:
    matrices = drawn(shape, 3)
    found, added = merged("wudi", matrices), torch.stack(matrices).sum(0)
    assert loss(found, matrices) < min(loss(added, matrices), loss(added / 3, matrices))
    gradient = sum((found - matrix) @ matrix.T @ matrix / matrix.norm() ** 2 for matrix in matrices)
    assert isinstance(gradient, Tensor)
    close(gradient, -1e-3 * 3 / shape[1] * found, 1e-6)  # but for the ridge it is zero


@pytest.mark.parametrize("shape", SHAPES)
def test_the_descent_of_wudi_ends_near_its_closed_form_whatever_the_size(shape: tuple[int, int]) -> None:
    matrices = drawn(shape, 3)
    found, added = merged("wudi_adam", matrices), torch.stack(matrices).sum(0)
    assert loss(merged("wudi", matrices, ridge=1e-6), matrices) < loss(found, matrices) < 0.5 * loss(added, matrices)
    close(merged("wudi_adam", [1e3 * matrix for matrix in reversed(matrices)]), 1e3 * found, 1e-6)
    (alone,) = drawn(shape, 1)
    close(merged("wudi_adam", [alone]), alone, 1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_wudi_of_identical_agents_is_that_agent_but_for_the_ridge(shape: tuple[int, int]) -> None:
    (matrix,) = drawn(shape, 1)
    close(merged("wudi", [matrix] * 3, ridge=1e-9), matrix, 1e-6)


def test_wudi_of_agents_with_inputs_of_their_own_is_their_sum() -> None:
    left, right = drawn((10, 16), 2)
    one, other = torch.zeros(2, 10, 32, dtype=torch.float64)
    one[:, :16], other[:, 16:] = left, right
    close(merged("wudi", [one, other], ridge=1e-10), one + other, 1e-6)


def test_resmerge_of_identical_agents() -> None:
    (matrix,) = drawn((24, 40), 1)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    head = torch.outer(left[:, 0], right[0])
    residual = matrix - values[0] * head
    close(merged("resmerge", [matrix] * 3), residual + 0.2 * residual.norm() * head, 1e-9)


def test_resmerge_of_orthogonal_agents_takes_the_mean_of_residuals_whatever_the_rounding() -> None:
    left, right = drawn((10, 16), 2)
    one, other = torch.zeros(2, 20, 32, dtype=torch.float64)
    one[:10, :16], other[10:, 16:] = left, right
    residuals = [matrix - _head(matrix) for matrix in (one, other)]
    close(merged("resmerge", [one, other]), (residuals[0] + residuals[1]) / 2, 1e-9)


def _head(matrix: Tensor) -> Tensor:
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    head: Tensor = values[0] * torch.outer(left[:, 0], right[0])
    return head
