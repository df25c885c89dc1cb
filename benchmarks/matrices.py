"""Compare methods on whole matrices with the same formulas by singular value decomposition in float64, in one process.

    python -m benchmarks.matrices [--shapes 896x4864 4864x896] [--agents 3] [--methods tsv_m iso_c ...]

Both get the same random task vectors in memory and run on one thread each. Times are processor time; the last column is
the relative difference of the results in the Frobenius norm. The formulas are those of tests/rules/spectral.py.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from tests.rules.spectral import FORMULAS, drawn, merged


def main() -> None:
    """Measure and print a table in markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["896x4864", "4864x896", "896x896"])
    parser.add_argument("--agents", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=list(FORMULAS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| method | matrix | decomposed | rammerge | ratio | difference |\n|---|---|---|---|---|---|")
    for shape in arguments.shapes:
        rows, columns = map(int, shape.split("x"))
        matrices = [matrix.float().double() for matrix in drawn((rows, columns), arguments.agents)]
        for method in arguments.methods:
            print(_row(method, shape, matrices), flush=True)


def _row(method: str, shape: str, matrices: list[Tensor]) -> str:
    expected, slow = _timed(lambda: FORMULAS[method](matrices))
    found, fast = _timed(lambda: merged(method, matrices))
    difference = float((found - expected).norm() / expected.norm())
    return f"| `{method}` | {shape} | {slow:.2f} s | {fast:.2f} s | {slow / fast:.1f}x | {difference:.0e} |"


def _timed(call: Callable[[], Tensor]) -> tuple[Tensor, float]:
    start = time.process_time()
    result = call()
    return result, time.process_time() - start


if __name__ == "__main__":
    main()
