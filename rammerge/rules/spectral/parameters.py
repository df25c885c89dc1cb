"""What the spectral methods share: scale, calibration, and the mean for tensors that are not matrices."""

from __future__ import annotations

from pydantic import Field

from rammerge.engine.passes.statistics import Statistics
from rammerge.rules.spec import Params


class SpectralParams(Params):
    """The scale of the merged task vector."""

    scale: float = Field(1.0, ge=0, description="factor of the merged task vector")


class CalibratedParams(SpectralParams):
    """The scale, and what is done with the result.

    A result whose singular values are equal, as those of Iso-C, has no directions that could be calibrated.
    """

    svc: float | None = Field(None, gt=0, description="calibrate the result's singular values (svc) with this alpha")


def scaled_mean(params: SpectralParams, _: Statistics, __: str, agents: int) -> list[list[float]]:
    """Return the factors of the scaled mean, which merges biases, norms and other tensors that are not matrices."""
    return [[params.scale / agents] * agents]


def scale_taken_back(params: CalibratedParams, _: Statistics) -> list[str]:
    """Return a sentence if the scale has next to no effect."""
    if params.svc is None or params.scale == 1.0:
        return []
    return ["`svc` takes the scale of matrices back, unless its alpha holds: sweep alpha instead of the scale"]
