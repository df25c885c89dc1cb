"""Writing what was recorded of a block function as C++."""

from collections.abc import Iterator, Sequence

from rammerge.engine.compiling.recording import Program

_HEAD = """
#include "elementwise.h"

extern "C" void rammerge_block(
    const void* const* inputs, void* const* results, const float* coefficients, float threshold, const int64_t* seeds,
    int64_t start, int64_t size, double* counts, double** totals) {
"""


def source(program: Program) -> str:
    """Return C++ that defines `rammerge_block`, a `Block` of tiles.cpp."""
    return "\n".join([_HEAD, *_body(program), "}", ""])


def _body(program: Program) -> Iterator[str]:
    for at, kind in enumerate(program.inputs):
        yield f"  auto* input{at} = static_cast<const {kind}*>(inputs[{at}]);"
    for at, name in enumerate(program.results):
        yield f"  auto* result{at} = static_cast<{program.steps[name].type}*>(results[{at}]);"
    for at, _ in enumerate(program.sums):
        yield f"  Values<float> sum{at}{{}};"
    yield from _grains(program) if program.totals else _loop(program, "0", "size")
    for at, _ in enumerate(program.sums):
        yield f"  counts[{at}] += total(sum{at});"


def _grains(program: Program) -> Iterator[str]:
    """Loop over grains and groups (rammerge.engine.sums)."""
    totals = range(len(program.totals))
    yield "  for (int64_t grain = 0; grain < size; grain += kGrain) {"
    yield from (f"  Lanes total{at}{{}};" for at in totals)
    yield "  for (int64_t group = grain; group < least(size, grain + kGrain); group += kGroup) {"
    yield from (f"  Lanes group{at}{{}};" for at in totals)
    yield from _loop(program, "group", "least(size, group + kGroup)")
    yield from (f"  accumulate(total{at}, group{at});" for at in totals)
    yield "  }"
    yield from (f"  *(*totals)++ = total(total{at});" for at in totals)
    yield "  }"


def _loop(program: Program, start: str, stop: str) -> Iterator[str]:
    yield f"  for (int64_t i = {start}, stop = {stop}; i < stop; i += kLanes) {{"
    yield "    const int64_t left = size - i;"
    yield "    const auto valid = first(left);"
    for name, step in program.steps.items():
        yield f"    const auto {name} = {step.expression};"
        # At once, so that a register holds the value no longer than it must.
        yield from (f"    accumulate(sum{at}, {name}, valid);" for at in _places(program.sums, name))
        yield from (f"    accumulate(group{at}, {name}, left, i);" for at in _places(program.totals, name))
        yield from (f"    store(result{at} + i, {name}, left);" for at in _places(program.results, name))
    yield "  }"


def _places(names: Sequence[str], wanted: str) -> list[int]:
    return [at for at, name in enumerate(names) if name == wanted]
