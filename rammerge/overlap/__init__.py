"""Task-vector overlap: which elements each agent changed, alone or with others, and the part that a merge keeps."""

from rammerge.overlap.gram import Gram, cosines
from rammerge.overlap.overlap import DENSE, FEW_UNIQUE, Densities, Overlap, poor_fits
from rammerge.overlap.ratio import overlap_ratio
from rammerge.overlap.survival import AgentSurvival, Survival

__all__ = [
    "DENSE",
    "FEW_UNIQUE",
    "AgentSurvival",
    "Densities",
    "Gram",
    "Overlap",
    "Survival",
    "cosines",
    "overlap_ratio",
    "poor_fits",
]
