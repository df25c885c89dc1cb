"""Contract: the product of a matrix with itself is whole and symmetric, whatever its size, though half is computed."""

import pytest
import torch

from rammerge.engine.matrices.symmetric import add_product, mirror


@pytest.mark.parametrize("rows", [1, 127, 128, 129, 300])
def test_the_sum_of_products_is_that_of_whole_products(rows: int) -> None:
    generator = torch.Generator().manual_seed(0)
    blocks = [torch.randn(rows, 7, dtype=torch.float64, generator=generator) for _ in range(2)]
    total = torch.zeros(rows, rows, dtype=torch.float64)
    for block in blocks:
        add_product(total, block)
    mirror(total)
    torch.testing.assert_close(total, sum((block @ block.T for block in blocks), torch.zeros_like(total)))
    above, below = total.triu(128), total.tril(-128).T
    assert torch.equal(above, below)
