// The places of elements in their rows, as rammerge/engine/rows.py computes them.

#pragma once

#include "elementwise.h"

// Replaces the bit patterns of numbers that are not below zero, whose order as integers is theirs, by their ranks in rows
// of `row` elements: 0 for the smallest, and of equal ones for the first. `work` has room for four numbers for each element
// of a row.
//
// Zeros, which are most of a sparse task vector, come first without being sorted. The rest is sorted digit by digit from
// the lowest, but for digits that are the same in all of it: differences of bfloat16 numbers have few digits.
inline void rank(uint32_t* numbers, int64_t row, int64_t size, uint32_t* work) {
  struct Item {
    uint32_t pattern, index;
  };
  constexpr int kDigit = 8, kValues = 1 << kDigit;
  for (const uint32_t* end = numbers + size; numbers < end; numbers += row) {
    auto *items = reinterpret_cast<Item*>(work), *others = items + row;
    uint32_t count = 0, zeros = 0, ones = 0, same = UINT32_MAX;
    for (uint32_t i = 0; i < row; ++i) {
      const uint32_t pattern = numbers[i];
      items[count] = {pattern, i};
      numbers[i] = zeros;
      const bool is_zero = pattern == 0;
      count += !is_zero;
      zeros += is_zero;
      ones |= pattern;
      same &= is_zero ? UINT32_MAX : pattern;
    }
    const uint32_t varies = ones & ~same;
    for (int shift = 0; shift < 32; shift += kDigit) {
      if (!(varies >> shift & (kValues - 1))) continue;
      uint32_t places[kValues] = {};
      for (uint32_t i = 0; i < count; ++i) ++places[items[i].pattern >> shift & (kValues - 1)];
      uint32_t before = 0;
      for (uint32_t& place : places) {
        const uint32_t here = place;
        place = before;
        before += here;
      }
      for (uint32_t i = 0; i < count; ++i) others[places[items[i].pattern >> shift & (kValues - 1)]++] = items[i];
      auto* sorted = others;
      others = items;
      items = sorted;
    }
    for (uint32_t i = 0; i < count; ++i) numbers[items[i].index] = zeros + i;
  }
}

// The places of the next of `left` elements: 0 for the smallest of a row, 1 for the largest.
RAMMERGE_INLINE Values<float> places(const uint32_t* ranks, int64_t left, int64_t row) {
  if (row == 1) return constant<float>(0.5f);
  const auto largest = constant<float>(static_cast<float>(row - 1));
  return div<float>(cast<float>(view<int32_t>(load(ranks, left))), largest);
}
