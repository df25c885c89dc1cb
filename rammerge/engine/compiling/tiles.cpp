// Reads the inputs of a merge tile by tile and calls block functions on each tile, without the interpreter: the worker
// threads would otherwise pass its lock to one another a dozen times for each tile. This file is compiled with each block
// function and called by rammerge/engine/compiling/loop.py, whose structures these mirror.

#include <errno.h>
#include <stdint.h>
#include <unistd.h>

// What rammerge/engine/compiling/source.py writes. It sees `size` elements of every input, of which the first has the index
// `start` in its tensor. For those in [from, to) it fills the results, adds to `counts`, and moves `totals` behind the sums
// over grains (rammerge/engine/sums.py) that it puts there. If it ranks numbers in their rows, the elements are whole rows
// of `row`, and `scratch` has room for `size` numbers of 4 bytes for each ranking, and four for each element of a row.
using Block = void (*)(
    const void* const* inputs, void* const* results, const float* coefficients, float threshold, const int64_t* seeds,
    int64_t start, int64_t size, int64_t row, int64_t from, int64_t to, void* scratch, double* counts, double** totals);

namespace {

// Where one input's elements come from: an open file, or with a descriptor below zero memory that has them.
struct Source {
  int64_t offset;
  int64_t itemsize;
  int32_t descriptor;
};

// What is the same for all elements (`Numbers` in rammerge/engine/blocks.py).
struct Numbers {
  const float* coefficients;
  const int64_t* seeds;
  float threshold;
};

// Where the bit patterns of results are counted. For each result, `span` patterns from its `first` are counted in bins of
// 2**shift patterns, and all others in a last bin. Those that are not the first of their bin are kept in `others`, which
// have `room` for each result, unless `filled` is below zero; see rammerge/engine/histogram.py.
struct Histogram {
  const uint32_t* firsts;
  int64_t* counts;
  uint32_t* others;
  int64_t* filled;
  int64_t room;
  uint32_t span;
  int32_t shift;
};

// A block function and what it computes with. It fills `results`, which are moved behind their ends tile by tile; or if
// there is a histogram, each tile is counted in it and overwrites the one before. `totals` has room for the sums over grains.
struct Call {
  Block block;
  void** results;
  const int64_t* itemsizes;
  int64_t result_count;
  const Numbers* numbers;
  const Histogram* histogram;
  void* scratch;
  double* counts;
  double* totals;
};

// What is read, and what of it is wanted: elements of one tensor, counted from the first that is read.
struct Span {
  int64_t start;  // the index of the first element in its tensor
  int64_t size;
  int64_t row;
  int64_t from;
  int64_t to;
};

enum Status : int32_t { kDone = 0, kUnreadable = 1, kShort = 2 };

Status fill(void* buffer, const Source& source, int64_t first, int64_t count) {
  char* to = static_cast<char*>(buffer);
  int64_t left = count * source.itemsize;
  int64_t from = source.offset + first * source.itemsize;
  while (left > 0) {
    const ssize_t done = pread(source.descriptor, to, static_cast<size_t>(left), from);
    if (done == 0) return kShort;
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return kUnreadable;
    to += done;
    from += done;
    left -= done;
  }
  return kDone;
}

// Each of four neighbours adds to its own counts. Most task vectors are mostly zeros, and each addition to the same count
// would have to wait for the one before. A branch around the zeros could not be predicted.
void count(const Histogram& histogram, int64_t row, const void* result, int64_t size) {
  const auto* patterns = static_cast<const uint32_t*>(result);
  const uint32_t first = histogram.firsts[row], span = histogram.span;
  const int64_t bins = (span >> histogram.shift) + 1;
  int64_t* counts = histogram.counts + row * 4 * bins;
  for (int64_t i = 0; i < size; ++i) {
    const uint32_t place = patterns[i] - first;
    const int64_t bin = place < span ? place >> histogram.shift : bins - 1;
    ++counts[(i & 3) * bins + bin];
  }
}

// Most parts of a tile have no pattern to keep, and are only looked at.
void keep(const Histogram& histogram, int64_t row, const void* result, int64_t size) {
  constexpr uint32_t kNotRanked = 0x7f7fffff;
  constexpr int64_t kPart = 1024;
  const auto* patterns = static_cast<const uint32_t*>(result);
  const uint32_t lower = (uint32_t{1} << histogram.shift) - 1;
  uint32_t* others = histogram.others + row * histogram.room;
  int64_t filled = histogram.filled[row];
  for (int64_t first = 0; first < size && filled >= 0; first += kPart) {
    const int64_t stop = size - first < kPart ? size : first + kPart;
    uint32_t any = 0;
    for (int64_t i = first; i < stop; ++i) any |= patterns[i] == kNotRanked ? 0 : patterns[i] & lower;
    if (!any) continue;
    if (histogram.room - filled < kPart) {
      filled = -1;
      break;
    }
    for (int64_t i = first; i < stop; ++i) {
      others[filled] = patterns[i];
      filled += (patterns[i] & lower) != 0 && patterns[i] != kNotRanked;
    }
  }
  histogram.filled[row] = filled;
}

int64_t within(int64_t x, int64_t low, int64_t high) { return x < low ? low : x < high ? x : high; }

void run(Call& call, const void* const* inputs, const Span& tile) {
  const Numbers& numbers = *call.numbers;
  call.block(
      inputs, call.results, numbers.coefficients, numbers.threshold, numbers.seeds, tile.start, tile.size, tile.row,
      tile.from, tile.to, call.scratch, call.counts, &call.totals);
  const int64_t wanted = tile.to - tile.from;
  for (int64_t i = 0; i < call.result_count; ++i) {
    if (call.histogram) {
      count(*call.histogram, i, call.results[i], wanted);
      keep(*call.histogram, i, call.results[i], wanted);
    } else {
      call.results[i] = static_cast<char*>(call.results[i]) + wanted * call.itemsizes[i];
    }
  }
}

}  // namespace

// Runs functions on `span` in tiles of `tile`, each of which is read once. The tiles of source i are read to `memory[i]`, or
// are there already, one behind the other. On kUnreadable and kShort `failed` is the index of the source; errno is the
// reason.
extern "C" int32_t rammerge_run_tiles(
    const Source* sources, char* const* memory, const void** inputs, int64_t source_count, Call* const* calls,
    int64_t call_count, const Span* span, int64_t tile, int64_t* failed) {
  for (int64_t first = 0; first < span->size; first += tile) {
    const int64_t size = span->size - first < tile ? span->size - first : tile;
    const Span part = {
        span->start + first, size, span->row, within(span->from - first, 0, size), within(span->to - first, 0, size)};
    for (int64_t i = 0; i < source_count; ++i) {
      const bool is_file = sources[i].descriptor >= 0;
      inputs[i] = is_file ? memory[i] : memory[i] + first * sources[i].itemsize;
      const Status status = is_file ? fill(memory[i], sources[i], first, size) : kDone;
      if (status != kDone) {
        *failed = i;
        return status;
      }
    }
    for (int64_t i = 0; i < call_count; ++i) run(*calls[i], inputs, part);
  }
  return kDone;
}
