"""Casting float32 results to the output dtype, to nearest or stochastically."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from rammerge.numerics.dtypes import DTYPES
from rammerge.numerics.randomness import random_bits
from rammerge.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

Rounding = Literal["nearest", "stochastic"]

FLOAT_DTYPES = {name: DTYPES[name] for name in ("float32", "bfloat16", "float16")}


def cast(values: Tensor, dtype: torch.dtype, rounding: Rounding, seed: Tensor, start: Tensor) -> Tensor:
    """Cast float32 `values` of shape [n] to `dtype`.

    Stochastic rounding goes to one of the two neighbours in `dtype`, up with the probability of the distance to the
    lower one, so that its expectation is the value itself: exactly for bfloat16 and to 2**-13 of a step for float16. A
    value that `dtype` holds is never moved.

    Args:
        values: float32, shape [n].
        dtype: float32, bfloat16 or float16.
        rounding: `nearest` (ties to even) or `stochastic`.
        seed: 0-d int64 that names the tensor, used by `stochastic` alone.
        start: 0-d int64, index in the tensor of the first value.
    """
    if rounding == "nearest" or dtype == torch.float32:
        return values.to(dtype)
    if dtype == torch.bfloat16:
        return _stochastic_bfloat16(values, random_bits(seed, start, values))
    return _stochastic_float16(values, random_bits(seed, start, values))


def _stochastic_bfloat16(values: Tensor, bits: Tensor) -> Tensor:
    # bfloat16 is the upper half of float32: adding 16 random bits to the lower half carries with the right probability.
    pattern = values.view(torch.int32).to(torch.int64)
    carried = (pattern + (bits & 0xFFFF)) & ~0xFFFF
    rounded = carried.to(torch.int32).view(torch.float32)
    # A carry out of the largest finite value would reach infinity; there the lower neighbour is the only one.
    lower = (pattern & ~0xFFFF).to(torch.int32).view(torch.float32)
    return torch.where(torch.isinf(rounded), lower, rounded).to(torch.bfloat16)


def _stochastic_float16(values: Tensor, bits: Tensor) -> Tensor:
    # A step of float16 is 2**-24 below 2**-14 and 2**(e-10) at magnitude 2**e; scaling by a power of two is exact.
    _, exponent = torch.frexp(values)
    step = torch.ldexp(torch.ones_like(values), torch.clamp(exponent - 11, min=-24))
    steps = torch.floor(values / step + (bits >> 8).float() * 2.0**-24)
    # The sum above is rounded to float32 when the value is whole steps already: keep those where they are.
    whole = values / step
    steps = torch.where(whole == torch.floor(whole), whole, steps)
    limit = torch.finfo(torch.float16).max
    return torch.where(values.abs() <= limit, torch.clamp(steps * step, -limit, limit), values).to(torch.float16)
