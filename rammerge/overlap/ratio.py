"""The overlap-unique ratio of an agent (RAM paper Sec. 4.2)."""

import math


def overlap_ratio(shared: int, unique: int) -> float:
    """Return rho = shared / unique (paper Sec. 4.2).

    The paper leaves `unique == 0` undefined: with shared elements rho is infinite, so that each rule below takes its
    limit; an agent that changed nothing has rho 0.
    """
    if unique:
        return shared / unique
    return math.inf if shared else 0.0
