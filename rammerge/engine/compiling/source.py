"""Writing what was recorded of a block function as C++."""

from collections.abc import Iterator

from rammerge.engine.compiling.recording import Program

_HEAD = """
#include "elementwise.h"

extern "C" void rammerge_block(
    const void* const* inputs, void* const* results, const float* coefficients, float threshold, const int64_t* seeds,
    int64_t start, int64_t size, double* counts) {
"""


def source(program: Program) -> str:
    """Return C++ that defines `rammerge_block` (tiles.cpp)."""
    return "\n".join([_HEAD, *_body(program), "}", ""])


def _body(program: Program) -> Iterator[str]:
    for at, kind in enumerate(program.inputs):
        yield f"  auto* input{at} = static_cast<const {kind}*>(inputs[{at}]);"
    for at, name in enumerate(program.results):
        yield f"  auto* result{at} = static_cast<{program.steps[name].type}*>(results[{at}]);"
    for at, _ in enumerate(program.sums):
        yield f"  Values<float> sum{at}{{}};"
    yield "  for (int64_t i = 0; i < size; i += kLanes) {"
    yield "    const int64_t left = size - i;"
    yield "    const auto valid = first(left);"
    for name, step in program.steps.items():
        yield f"    const auto {name} = {step.expression};"
        # At once, so that a register holds the value no longer than it must.
        yield from (
            f"    accumulate(sum{at}, {name}, valid);" for at, value in enumerate(program.sums) if value == name
        )
        yield from (
            f"    store(result{at} + i, {name}, left);" for at, value in enumerate(program.results) if value == name
        )
    yield "  }"
    for at, _ in enumerate(program.sums):
        yield f"  counts[{at}] += total(sum{at});"
