// Reads the inputs of a merge tile by tile and calls a compiled block function on each tile, away from the interpreter,
// whose lock the worker threads would else hand to and fro a dozen times a tile. Compiled beside the block functions
// and called by rammerge/engine/compiled.py, whose structures these mirror.

#include <cerrno>
#include <cstddef>
#include <cstdint>
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

using Run = int32_t (*)(void* container, AtenTensorHandle* inputs, size_t, AtenTensorHandle* outputs, size_t, void*, void*);

enum Status : int32_t { kDone = 0, kFailed = 1, kUnreadable = 2, kShort = 3 };

Status fill(const Source& source, int64_t first, int64_t count) {
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

}  // namespace

// Runs the function on `elements` elements in tiles of `tile`. Leaves one handle a tile in `results`, which the caller
// owns, and adds to `counts`. On kUnreadable and kShort `failed` is the index of the source; errno is the reason.
extern "C" int32_t rammerge_run_tiles(
    void* container, Run run, const Source* sources, int64_t source_count, const Constant* constants,
    int64_t constant_count, int64_t start, int64_t elements, int64_t tile, AtenTensorHandle* results, double* counts,
    int64_t count_count, int64_t* failed) {
  for (int64_t first = 0; first < elements; first += tile) {
    const int64_t size = elements - first < tile ? elements - first : tile;
    int64_t index = start + first;
    std::vector<AtenTensorHandle> inputs;
    for (int64_t i = 0; i < source_count; ++i) {
      const Status status = fill(sources[i], first, size);
      if (status != kDone) {
        *failed = i;
        return status;
      }
      if (!wrap(sources[i].buffer, 1, &size, sources[i].dtype, inputs)) return kFailed;
    }
    for (int64_t i = 0; i < constant_count; ++i) {
      const Constant& constant = constants[i];
      if (!wrap(constant.data, constant.rank, constant.sizes, constant.dtype, inputs)) return kFailed;
    }
    if (!wrap(&index, 0, nullptr, aoti_torch_dtype_int64(), inputs)) return kFailed;
    AtenTensorHandle outputs[2];
    if (run(container, inputs.data(), inputs.size(), outputs, 2, nullptr, nullptr)) return kFailed;
    *results++ = outputs[0];
    void* found = nullptr;
    if (aoti_torch_get_data_ptr(outputs[1], &found)) return kFailed;
    for (int64_t i = 0; i < count_count; ++i) counts[i] += static_cast<const double*>(found)[i];
    aoti_torch_delete_tensor_object(outputs[1]);
  }
  return kDone;
}
