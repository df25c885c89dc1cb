"""Casting float32 results to the output dtype, to the nearest value or stochastically."""

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

    Stochastic rounding picks one of the two neighbors in `dtype`. The probability of the upper one is the distance
    from the lower one, in steps, so the expectation is the value itself: exactly for bfloat16, to within 2**-13 of a
    step for float16. A value that `dtype` can hold never moves.

    Args:
        values: float32, shape [n].
        dtype: float32, bfloat16 or float16.
        rounding: `nearest` (ties to even) or `stochastic`.
        seed: 0-d int64, one per tensor; only `stochastic` uses it.
        start: 0-d int64, the index of the first value in its tensor.
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
    # A carry out of the largest finite value would give infinity, so the lower neighbor is the only choice there.
    lower = (pattern & ~0xFFFF).to(torch.int32).view(torch.float32)
    return torch.where(torch.isinf(rounded), lower, rounded).to(torch.bfloat16)


def _stochastic_float16(values: Tensor, bits: Tensor) -> Tensor:
    # A step of float16 is 2**-24 below 2**-14 and 2**(e-10) at magnitude 2**e; scaling by a power of two is exact.
    _, exponent = torch.frexp(values)
    step = torch.ldexp(torch.ones_like(values), torch.clamp(exponent - 11, min=-24))
    steps = torch.floor(values / step + (bits >> 8).float() * 2.0**-24)
    # A value that is a whole number of steps stays as it is: the sum above could round it up in float32.
    whole = values / step
    steps = torch.where(whole == torch.floor(whole), whole, steps)
    limit = torch.finfo(torch.float16).max
    return torch.where(values.abs() <= limit, torch.clamp(steps * step, -limit, limit), values).to(torch.float16)
