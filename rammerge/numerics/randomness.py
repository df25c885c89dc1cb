"""Random bits that depend only on a name and an element's index, so the order of work does not change them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from rammerge.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

_LOW_32 = 0xFFFFFFFF
# Odd 31-bit constants: a product with a 32-bit number stays below 2**63, where int64 arithmetic is well defined.
_MULTIPLIERS = (0x7FEB352D, 0x6C8E9CF5, 0x45D9F3B3)


def seed_from(*parts: str | int) -> int:
    """Return a seed in [0, 2**62) from names and numbers, the same on every machine."""
    text = "\0".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 2


def random_bits(seed: Tensor, start: Tensor, like: Tensor) -> Tensor:
    """Return 32 random bits for each element of a block.

    The generator is counter-based: three rounds of multiply and xor-shift over the element's index, keyed by both
    halves of the seed. Blocks of any size draw the same bits for the same element.

    Args:
        seed: 0-d int64 in [0, 2**62).
        start: 0-d int64, the index of the block's first element in its tensor.
        like: a tensor of shape [n] on the device where the bits are wanted.

    Returns:
        int64 of shape [n], values in [0, 2**32).
    """
    index = torch.arange(like.shape[0], device=like.device, dtype=torch.int64) + start
    state = (index & _LOW_32) ^ (seed & _LOW_32)
    keys = (seed >> 32, index >> 32, seed & _LOW_32)
    for multiplier, key in zip(_MULTIPLIERS, keys, strict=True):
        state = ((state ^ (state >> 16)) * multiplier) & _LOW_32
        state = state ^ (state >> 15) ^ (key & _LOW_32)
    state = (state * 0x2C1B3C6D) & _LOW_32
    return state ^ (state >> 16)


def uniform(seed: Tensor, start: Tensor, like: Tensor) -> Tensor:
    """Return float32 uniform in [0, 1), multiples of 2**-24, shape of `like`; arguments as `random_bits`."""
    return (random_bits(seed, start, like) >> 8).float() * 2.0**-24
