"""Which elements of an agent count as changed: the mask of the paper (Sec. 3.1) and its alternatives.

Everything is element-wise and written once for CPU and GPU, eager and compiled. A mask is a float32 tensor of zeros and
ones rather than booleans, because on a CPU float arithmetic vectorizes and comparisons that yield bool do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rammerge.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

MaskMode = Literal["abs", "exact", "relative", "ulp"]


@dataclass(frozen=True)
class Mask:
    """How to tell a changed element from an unchanged one. Comparisons with `threshold` are made in float32.

    Modes, with w0 the base's element and w the agent's:
        abs: |w - w0| > threshold, strictly (RAM paper, epsilon = 1e-5).
        exact: w, cast to the base's dtype, differs from w0; `threshold` has no effect.
        relative: |w - w0| > threshold * max(|w|, |w0|) (arXiv 2511.08567 uses threshold = 1e-3).
        ulp: w, cast to the base's dtype, is at least `threshold` representable steps from w0.
    """

    mode: MaskMode = "abs"
    threshold: float = 1e-5


def mask_from(mode: MaskMode, epsilon: float, eta: float, ulps: int) -> Mask:
    """Return the mask of a mode with that mode's threshold: epsilon (abs), eta (relative) or ulps (ulp)."""
    thresholds = {"abs": epsilon, "exact": 0.0, "relative": eta, "ulp": float(ulps)}
    return Mask(mode, thresholds[mode])


def changes(base: Tensor, agent: Tensor, mode: MaskMode, threshold: Tensor) -> tuple[Tensor, Tensor]:
    """Return one agent's task vector and its mask.

    Args:
        base: stored base elements, any float dtype, shape [n].
        agent: stored agent elements, any float dtype, shape [n].
        mode: see `Mask`.
        threshold: 0-d float32.

    Returns:
        `agent - base` and the mask of changed elements (0 or 1), both float32 of shape [n]. A NaN or an infinity in
        either input leaves the product of the two non-finite.
    """
    before, after = base.float(), agent.float()
    delta = after - before
    if mode == "abs":
        changed = delta.abs() > threshold
    elif mode == "relative":
        changed = delta.abs() > threshold * torch.maximum(before.abs(), after.abs())
    elif mode == "exact":
        changed = agent.to(base.dtype).float() != before
    else:
        changed = _ulp_distance(base, agent.to(base.dtype)) >= threshold
    return delta, changed.float()


def _ulp_distance(left: Tensor, right: Tensor) -> Tensor:
    # Read as sign and magnitude, the bit patterns of floats are numbered in the order of their values.
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}[left.dtype.itemsize]

    def rank(values: Tensor) -> Tensor:
        bits = values.view(integers).to(torch.int64)
        return torch.where(bits < 0, torch.iinfo(integers).min - bits, bits)

    return (rank(left) - rank(right)).abs().float()
