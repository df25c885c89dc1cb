"""Task-vector overlap: which elements each agent changed, alone or with others."""

from rammerge.overlap.overlap import DENSE, FEW_UNIQUE, Densities, Overlap, poor_fits
from rammerge.overlap.ratio import overlap_ratio

__all__ = ["DENSE", "FEW_UNIQUE", "Densities", "Overlap", "overlap_ratio", "poor_fits"]
