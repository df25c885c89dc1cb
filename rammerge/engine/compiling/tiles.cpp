// Reads the inputs of a merge tile by tile and calls a compiled block function on each tile, away from the interpreter,
// whose lock the worker threads would else hand to and fro a dozen times a tile. Compiled beside the block functions
// and called by rammerge/engine/native.py, whose structures these mirror.

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <unistd.h>
#include <vector>

#include <torch/csrc/inductor/aoti_torch/c/shim.h>

namespace {

// Where one input's elements come from, and the buffer for a tile of them.
struct Source {
  char* buffer;
  int64_t offset;
  int64_t itemsize;
  int32_t descriptor;
  int32_t dtype;
};

// An input that is the same for all tiles.
struct Constant {
  void* data;
  int64_t rank;
  int64_t sizes[2];
  int32_t dtype;
};

// Where a result of the function goes: all elements, or one tile after the other in the same place if they are
// counted.
struct Result {
  char* data;
  int64_t itemsize;
  int32_t dtype;
};

// Where the bit patterns of results are counted: for each result from its `first` on `span` patterns, in bins of
// 2**shift and a last bin for those elsewhere; see rammerge/engine/histogram.py.
struct Histogram {
  const uint32_t* firsts;
  int64_t* counts;
  uint32_t span;
  int32_t shift;
};

using Run = int32_t (*)(
    void* container, AtenTensorHandle* inputs, size_t, AtenTensorHandle* outputs, size_t, void*, void*);

enum Status : int32_t { kDone = 0, kFailed = 1, kUnreadable = 2, kShort = 3 };

// Reads `count` elements from `first` on, and puts zeros after them up to `length`.
Status fill(const Source& source, int64_t first, int64_t count, int64_t length) {
  char* to = source.buffer;
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
  std::memset(to, 0, static_cast<size_t>((length - count) * source.itemsize));
  return kDone;
}

bool wrap(void* data, int64_t rank, const int64_t* sizes, int32_t dtype, std::vector<AtenTensorHandle>& handles) {
  const int64_t strides[2] = {rank == 2 ? sizes[1] : 1, 1};
  AtenTensorHandle handle = nullptr;
  if (aoti_torch_create_tensor_from_blob(
          data, rank, sizes, strides, 0, dtype, aoti_torch_device_type_cpu(), 0, &handle)) {
    return false;
  }
  handles.push_back(handle);
  return true;
}

// Each of four neighbours adds to counts of its own: most task vectors are mostly zeros, and adding to one count over
// and over would wait each time for the sum before; a branch around the zeros could not be predicted.
void count(const Histogram& histogram, int64_t row, const Result& result, int64_t size) {
  const auto* patterns = reinterpret_cast<const uint32_t*>(result.data);
  const uint32_t first = histogram.firsts[row], span = histogram.span;
  const int64_t bins = (span >> histogram.shift) + 1;
  int64_t* counts = histogram.counts + row * 4 * bins;
  for (int64_t i = 0; i < size; ++i) {
    const uint32_t place = patterns[i] - first;
    const int64_t bin = place < span ? place >> histogram.shift : bins - 1;
    ++counts[(i & 3) * bins + bin];
  }
}

}  // namespace

// Runs the function on `elements` elements in tiles of `tile`, fills the results or counts them in the histogram if
// there is one, and adds to `counts`. The function writes its tensors itself if it is made `in_place`, else returns them.
// It takes no fewer than `least` elements; zeros, which no agent changed, make up for what a tile has less.
// On kUnreadable and kShort `failed` is the index of the source; errno is the reason.
extern "C" int32_t rammerge_run_tiles(
    void* container, Run run, const Source* sources, int64_t source_count, const Constant* constants,
    int64_t constant_count, const Result* results, int64_t result_count, int64_t start, int64_t elements, int64_t tile,
    int64_t least, double* counts, int64_t count_count, const Histogram* histogram, int32_t in_place, int64_t* failed) {
  std::vector<AtenTensorHandle> outputs(static_cast<size_t>(in_place ? 1 : result_count + 1));
  for (int64_t first = 0; first < elements; first += tile) {
    const int64_t size = elements - first < tile ? elements - first : tile;
    const int64_t length = size < least ? least : size;
    int64_t index = start + first;
    std::vector<AtenTensorHandle> inputs;
    for (int64_t i = 0; i < source_count; ++i) {
      const Status status = fill(sources[i], first, size, length);
      if (status != kDone) {
        *failed = i;
        return status;
      }
    }
    for (int64_t i = 0; i < source_count; ++i) {  // only now: what is wrapped is let go of by the function alone
      if (!wrap(sources[i].buffer, 1, &length, sources[i].dtype, inputs)) return kFailed;
    }
    for (int64_t i = 0; i < constant_count; ++i) {
      const Constant& constant = constants[i];
      if (!wrap(constant.data, constant.rank, constant.sizes, constant.dtype, inputs)) return kFailed;
    }
    if (!wrap(&index, 0, nullptr, aoti_torch_dtype_int64(), inputs)) return kFailed;
    const auto place = [&](int64_t i) { return results[i].data + (histogram ? 0 : first * results[i].itemsize); };
    for (int64_t i = 0; in_place && i < result_count; ++i) {
      if (!wrap(place(i), 1, &length, results[i].dtype, inputs)) return kFailed;
    }
    if (run(container, inputs.data(), inputs.size(), outputs.data(), outputs.size(), nullptr, nullptr)) return kFailed;
    void* found = nullptr;
    for (int64_t i = 0; !in_place && i < result_count; ++i) {
      if (aoti_torch_get_data_ptr(outputs[i], &found)) return kFailed;
      std::memcpy(place(i), found, static_cast<size_t>(size * results[i].itemsize));
    }
    if (aoti_torch_get_data_ptr(outputs.back(), &found)) return kFailed;
    for (int64_t i = 0; i < count_count; ++i) counts[i] += static_cast<const double*>(found)[i];
    for (AtenTensorHandle output : outputs) aoti_torch_delete_tensor_object(output);
    for (int64_t i = 0; histogram && i < result_count; ++i) count(*histogram, i, results[i], size);
  }
  return kDone;
}
