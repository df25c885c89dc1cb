// Decodes consecutive blocks of a patch (docs/patch.md) in one pass over memory that holds the base's elements, without the
// interpreter. rammerge/checkpoints/patched/compiled.py compiles it with BLOCK, the elements of a block, ELEMENT, an
// unsigned integer as wide as an element, and IS_FLOAT, and calls it; decoding.py does the same with numpy.

#include <stddef.h>
#include <stdint.h>
#include <string.h>

// The stable interface of libzstd, whose header is rarely installed. Errors are results larger than any capacity.
extern "C" {
struct ZSTD_DCtx_s;
ZSTD_DCtx_s* ZSTD_createDCtx();
size_t ZSTD_freeDCtx(ZSTD_DCtx_s* context);
size_t ZSTD_decompressDCtx(ZSTD_DCtx_s* context, void* to, size_t capacity, const void* from, size_t size);
}

namespace {

enum Status : int32_t { kDone = 0, kDamagedFrame = 1, kNoBase = 2, kOutside = 3 };
enum Mode : uint8_t { kSame = 0, kBitmap = 1, kGaps = 2, kBytes = 3, kSteps = 4 };

using Element = ELEMENT;

constexpr int kTop = 8 * sizeof(Element) - 1;
constexpr Element kSign = static_cast<Element>(Element{1} << kTop);
constexpr uint8_t kLong = 255;

// A row of a table of blocks, as it is in the file (`ROW` in container.py).
struct __attribute__((packed)) Row {
  uint8_t mode;
  uint8_t planes;
  uint32_t content;
  uint32_t first;
  uint32_t second;
};

// What a thread needs to decode a block.
struct Scratch {
  ZSTD_DCtx_s* context = ZSTD_createDCtx();
  alignas(64) uint8_t where[BLOCK + 8];
  alignas(64) uint8_t content[BLOCK * sizeof(Element)];
  alignas(64) Element steps[BLOCK];
  ~Scratch() { ZSTD_freeDCtx(context); }
};

thread_local Scratch scratch;

bool inflate(uint8_t* to, int64_t size, const uint8_t* frame, uint32_t length) {
  return scratch.context != nullptr &&
         ZSTD_decompressDCtx(scratch.context, to, static_cast<size_t>(size), frame, length) == static_cast<size_t>(size);
}

// The element that is `zigzag` steps from `bits`.
Element moved(Element bits, Element zigzag) {
  const Element step = static_cast<Element>((zigzag >> 1) ^ static_cast<Element>(0 - (zigzag & 1)));
  if (!IS_FLOAT) return static_cast<Element>(bits + step);
  const Element ordered = static_cast<Element>(bits ^ (static_cast<Element>(0 - (bits >> kTop)) | kSign)) + step;
  return static_cast<Element>(ordered ^ (static_cast<Element>((ordered >> kTop) - 1) | kSign));
}

// Puts `count` numbers of half a byte each, plus `bias`, into scratch.steps.
void from_halves(int64_t count, Element bias) {
  Element* steps = scratch.steps;
  const uint8_t* halves = scratch.content;
  for (int64_t i = 0; i < count / 2; ++i) {
    steps[2 * i] = static_cast<Element>((halves[i] & 15) + bias);
    steps[2 * i + 1] = static_cast<Element>((halves[i] >> 4) + bias);
  }
  if (count & 1) steps[count - 1] = static_cast<Element>((halves[count / 2] & 15) + bias);
}

// Puts `count` numbers, of which the lowest `planes` bytes are in as many planes, to `to`.
void from_planes(Element* to, int64_t count, int64_t planes) {
  const uint8_t* plane = scratch.content;
  for (int64_t i = 0; i < count; ++i) to[i] = plane[i];
  for (int64_t p = 1; p < planes; ++p) {
    plane += count;
    for (int64_t i = 0; i < count; ++i) to[i] = static_cast<Element>(to[i] | static_cast<Element>(plane[i]) << 8 * p);
  }
}

// Puts the steps of `count` elements into scratch.steps.
bool read_steps(const Row& row, const uint8_t* frame, int64_t count, Element bias) {
  if (row.planes > sizeof(Element)) return false;
  const int64_t size = row.planes ? count * row.planes : (count + 1) / 2;
  if (!inflate(scratch.content, size, frame, row.second)) return false;
  if (row.planes) {
    from_planes(scratch.steps, count, row.planes);
  } else {
    from_halves(count, bias);
  }
  return true;
}

// The following decode elements [skipped, skipped + wanted) of a block of `elements`, which are in `to`.

Status bitmap(const Row& row, const uint8_t* frames, Element* to, int64_t skipped, int64_t wanted, int64_t elements) {
  const int64_t bytes = (elements + 7) / 8;
  if (row.content != bytes || !inflate(scratch.where, bytes, frames, row.first)) return kDamagedFrame;
  if (elements % 8) scratch.where[bytes - 1] &= static_cast<uint8_t>((1 << elements % 8) - 1);
  memset(scratch.where + bytes, 0, 8);
  const auto word = [](int64_t at) {
    uint64_t bits;
    memcpy(&bits, scratch.where + 8 * at, 8);
    return bits;
  };
  int64_t count = 0, before = 0;
  for (int64_t at = 0; at < (elements + 63) / 64; ++at) count += __builtin_popcountll(word(at));
  for (int64_t at = 0; at < skipped / 64; ++at) before += __builtin_popcountll(word(at));
  if (!read_steps(row, frames + row.first, count, 1)) return kDamagedFrame;
  const Element* steps = scratch.steps + before;
  for (int64_t at = skipped / 64; 64 * at < skipped + wanted; ++at) {
    for (uint64_t bits = word(at); bits; bits &= bits - 1) {
      const int64_t place = 64 * at + __builtin_ctzll(bits) - skipped;
      if (place >= wanted) break;
      if (place >= 0) to[place] = moved(to[place], *steps);
      ++steps;
    }
  }
  return kDone;
}

Status gaps(const Row& row, const uint8_t* frames, Element* to, int64_t skipped, int64_t wanted, int64_t elements) {
  if (row.content > BLOCK || !inflate(scratch.where, row.content, frames, row.first)) return kDamagedFrame;
  int64_t count = 0, place = -skipped;
  for (int64_t i = 0; i < row.content; ++i) count += scratch.where[i] != kLong;
  if (!read_steps(row, frames + row.first, count, 1)) return kDamagedFrame;
  const Element* steps = scratch.steps;
  for (int64_t i = 0; i < row.content; ++i) {
    place += scratch.where[i];
    if (scratch.where[i] == kLong) continue;
    if (place >= elements - skipped) return kOutside;
    if (place >= 0 && place < wanted) to[place] = moved(to[place], *steps);
    ++steps;
    ++place;
  }
  return kDone;
}

Status bytes(const Row& row, const uint8_t* frames, Element* to, int64_t skipped, int64_t wanted, int64_t elements) {
  const int64_t size = elements * static_cast<int64_t>(sizeof(Element));
  if (row.planes != 1 && row.planes != sizeof(Element)) return kDamagedFrame;
  if (!inflate(scratch.content, size, frames, row.second)) return kDamagedFrame;
  Element* made = reinterpret_cast<Element*>(scratch.content);
  if (row.planes != 1) from_planes(made = scratch.steps, elements, row.planes);
  memcpy(to, made + skipped, static_cast<size_t>(wanted) * sizeof(Element));
  return kDone;
}

Status steps(const Row& row, const uint8_t* frames, Element* to, int64_t skipped, int64_t wanted, int64_t elements) {
  if (!read_steps(row, frames, elements, 0)) return kDamagedFrame;
  const Element* steps = scratch.steps + skipped;
  for (int64_t i = 0; i < wanted; ++i) to[i] = moved(to[i], steps[i]);
  return kDone;
}

Status block(
    const Row& row, const uint8_t* frames, Element* to, int64_t skipped, int64_t wanted, int64_t elements, bool has_base) {
  if (row.mode == kBytes) return bytes(row, frames, to, skipped, wanted, elements);
  if (!has_base) return kNoBase;
  switch (row.mode) {
    case kSame: return kDone;
    case kBitmap: return bitmap(row, frames, to, skipped, wanted, elements);
    case kGaps: return gaps(row, frames, to, skipped, wanted, elements);
    case kSteps: return steps(row, frames, to, skipped, wanted, elements);
    default: return kDamagedFrame;
  }
}

}  // namespace

// Turns the base's elements in `to` into the agent's: `wanted` elements, after `skipped` ones of the
// first block. `rows` are the rows of all blocks that they lie in, `frames` these blocks' frames, and `elements` are left in
// the tensor from the first block's start. Without the base's elements only bytes can be decoded.
extern "C" int32_t rammerge_decode_blocks(
    const Row* rows, const uint8_t* frames, Element* to, int64_t skipped, int64_t wanted, int64_t elements,
    int32_t has_base) {
  for (; wanted > 0; ++rows) {
    const int64_t length = elements < BLOCK ? elements : BLOCK;
    const int64_t part = wanted < length - skipped ? wanted : length - skipped;
    const Status status = block(*rows, frames, to, skipped, part, length, has_base);
    if (status != kDone) return status;
    frames += static_cast<int64_t>(rows->first) + rows->second;
    to += part;
    wanted -= part;
    elements -= length;
    skipped = 0;
  }
  return kDone;
}
