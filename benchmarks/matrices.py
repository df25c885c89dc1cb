"""Compare methods on whole matrices with the same formulas by singular value decomposition in float64, in one process.

    python -m benchmarks.matrices [--shapes 896x4864 4864x896] [--agents 3] [--methods tsv_m ...] [--fusion-bench DIR]

Both get the same random task vectors in memory and run on one thread each. Times are processor time; the last column is
the relative difference of the results in the Frobenius norm. The formulas are those of tests/rules/spectral.py, or
FusionBench's own functions, from a directory in which `pip install --target DIR fusion_bench` put it.
"""

import argparse
import importlib
import io
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from tests.rules.spectral import FORMULAS, drawn, merged


def main() -> None:
    """Measure and print a table in markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["896x4864", "4864x896", "896x896"])
    parser.add_argument("--agents", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=[name for name in FORMULAS if name != "wudi_adam"])
    parser.add_argument("--fusion-bench", type=Path, help="where FusionBench is installed, to compare with it instead")
    arguments = parser.parse_args()
    formulas = FORMULAS if arguments.fusion_bench is None else _functions(arguments.fusion_bench)
    torch.set_num_threads(1)
    print("| method | matrix | decomposed | rammerge | ratio | difference |\n|---|---|---|---|---|---|")
    for shape in arguments.shapes:
        rows, columns = map(int, shape.split("x"))
        matrices = [matrix.float().double() for matrix in drawn((rows, columns), arguments.agents)]
        for method in arguments.methods:
            if method in formulas:
                print(_row(method, shape, formulas[method], matrices), flush=True)


def _functions(directory: Path) -> dict[str, Callable[[list[Tensor]], Tensor]]:
    """Return what FusionBench computes of the matrices of one tensor."""
    sys.path.append(str(directory))
    iso = importlib.import_module("fusion_bench.method.isotropic_merging.iso_utils")
    tsv = importlib.import_module("fusion_bench.method.task_singular_vector.utils.TSVM_utils")
    named: dict[str, Callable[[list[dict[str, Tensor]]], dict[str, Tensor]]] = {
        "tsv_m": lambda models: tsv.compute_and_sum_svd_mem_reduction(models, accelerator="cpu"),
        "iso_c": lambda models: iso.iso_c(models, accelerator="cpu"),
        "iso_cts": lambda models: iso.iso_cts(models, 0.8, accelerator="cpu"),
    }
    return {name: partial(_quietly, call) for name, call in named.items()}


def _quietly(call: Callable[[list[dict[str, Tensor]]], dict[str, Tensor]], matrices: list[Tensor]) -> Tensor:
    with redirect_stdout(io.StringIO()):
        return call([{"weight": matrix} for matrix in matrices])["weight"]


def _row(method: str, shape: str, formula: Callable[[list[Tensor]], Tensor], matrices: list[Tensor]) -> str:
    expected, slow = _timed(lambda: formula(matrices))
    found, fast = _timed(lambda: merged(method, matrices))
    difference = float((found - expected).norm() / expected.norm())
    return f"| `{method}` | {shape} | {slow:.2f} s | {fast:.2f} s | {slow / fast:.1f}x | {difference:.0e} |"


def _timed(call: Callable[[], Tensor]) -> tuple[Tensor, float]:
    start = time.process_time()
    result = call()
    return result, time.process_time() - start


if __name__ == "__main__":
    main()
