"""Writing what was recorded of a block function as C++."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import takewhile
from operator import ne

from rammerge.engine.compiling.recording import Program

_HEAD = """
#include "rows.h"

extern "C" const int64_t rammerge_ranked = {ranked};

extern "C" void rammerge_block(
    const void* const* inputs, void* const* results, const float* coefficients, float threshold, const int64_t* seeds,
    int64_t start, int64_t size, int64_t row, int64_t from, int64_t to, void* scratch, double* counts,
    double** totals) {{
"""


def source(program: Program) -> str:
    """Return C++ that defines `rammerge_block`, a `Block` of tiles.cpp, and how many numbers it ranks in their rows."""
    return "\n".join([_HEAD.format(ranked=len(program.ranked)), *_body(program), "}", ""])


def _body(program: Program) -> Iterator[str]:
    for at, kind in enumerate(program.inputs):
        yield f"  auto* input{at} = static_cast<const {kind}*>(inputs[{at}]);"
    for at, name in enumerate(program.results):
        # Results begin at the first element that is wanted.
        yield f"  auto* result{at} = static_cast<{program.steps[name].type}*>(results[{at}]) - from;"
    for at, _ in enumerate(program.sums):
        yield f"  Values<float> sum{at}{{}};"
    yield from _rankings(program)
    yield from _grains(program) if program.totals else _loop(program, "from", "to", "to")
    for at, _ in enumerate(program.sums):
        yield f"  counts[{at}] += total(sum{at});"


def _rankings(program: Program) -> Iterator[str]:
    """Rank all elements, wanted or not, by what is computed in a loop for each ranking; the compiler drops the rest."""
    for at in range(len(program.ranked)):
        yield f"  auto* ranks{at} = static_cast<uint32_t*>(scratch) + {at} * size;"
    for at, (place, ranked) in enumerate(program.ranked.items()):
        yield "  for (int64_t i = 0; i < size; i += kLanes) {"
        yield "    const int64_t left = size - i;"
        for name in takewhile(partial(ne, place), program.steps):
            yield f"    const auto {name} = {program.steps[name].expression};"
        yield f"    store(ranks{at} + i, view<uint32_t>({ranked}), left);"
        yield "  }"
        yield f"  rank(ranks{at}, row, size, static_cast<uint32_t*>(scratch) + {len(program.ranked)} * size);"


def _grains(program: Program) -> Iterator[str]:
    """Loop over grains and groups (rammerge.engine.sums)."""
    totals = range(len(program.totals))
    yield "  for (int64_t grain = from; grain < to; grain += kGrain) {"
    yield from (f"  Lanes total{at}{{}};" for at in totals)
    yield "  for (int64_t group = grain; group < least(to, grain + kGrain); group += kGroup) {"
    yield from (f"  Lanes group{at}{{}};" for at in totals)
    yield from _loop(program, "group", "least(to, group + kGroup)", "to")
    yield from (f"  accumulate(total{at}, group{at});" for at in totals)
    yield "  }"
    yield from (f"  *(*totals)++ = total(total{at});" for at in totals)
    yield "  }"


def _loop(program: Program, start: str, stop: str, end: str) -> Iterator[str]:
    yield f"  for (int64_t i = {start}, stop = {stop}; i < stop; i += kLanes) {{"
    yield f"    const int64_t left = {end} - i;"
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
