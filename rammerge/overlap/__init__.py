"""Task-vector overlap: which elements each agent changed, alone or with others, and the part that a merge keeps."""

from rammerge.overlap.advice import DENSE, FEW_UNIQUE, poor_fits
from rammerge.overlap.densities import Densities
from rammerge.overlap.gram import Gram, cosines
from rammerge.overlap.overlap import Overlap
from rammerge.overlap.pairs import Pairs
from rammerge.overlap.parts import Part
from rammerge.overlap.ranks import MatrixRanks, Ranks, ranks_of
from rammerge.overlap.ratio import overlap_ratio
from rammerge.overlap.survival import AgentSurvival, Survival

__all__ = [
    "DENSE",
    "FEW_UNIQUE",
    "AgentSurvival",
    "Densities",
    "Gram",
    "MatrixRanks",
    "Overlap",
    "Pairs",
    "Part",
    "Ranks",
    "Survival",
    "cosines",
    "overlap_ratio",
    "poor_fits",
    "ranks_of",
]
