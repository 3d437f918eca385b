// SPDX-License-Identifier: Apache-2.0
// A, gathered through a column table or only moved, into rows that the copy engine can read: base
// and row stride multiples of 16 bytes.
#pragma once

#include <ptx/special_registers.cuh>

#include "cuda/align.h"

namespace padmarlin {

constexpr int kAlignThreads = 256;
constexpr int kAlignColumns = 8;  // of a thread: 16 bytes
constexpr int kAlignRows = 4;     // of a thread: they share what it reads of the table

constexpr int align_column_blocks(int width) {
  return div_up(width, kAlignColumns * kAlignThreads);
}
constexpr int64_t align_blocks(int m, int width) {
  return static_cast<int64_t>(div_up(m, kAlignRows)) * align_column_blocks(width);
}

// Grid (align_blocks), kAlignThreads threads. kGathers: through args.columns.
template <bool kGathers>
__global__ void __launch_bounds__(kAlignThreads) align_kernel(AlignArguments args) {
  const int column_blocks = align_column_blocks(args.width);
  const int first_row = ptx::ctaid_x() / column_blocks * kAlignRows;
  const int first = (ptx::ctaid_x() % column_blocks * kAlignThreads + ptx::tid_x()) * kAlignColumns;
  if (first >= args.width) return;  // a multiple of 8
  int columns[kAlignColumns];
#pragma unroll
  for (int i = 0; i < kAlignColumns; ++i) {
    columns[i] = kGathers ? args.columns[first + i] : first + i;
  }
  const uint16_t* const a = static_cast<const uint16_t*>(args.a);
#pragma unroll
  for (int j = 0; j < kAlignRows; ++j) {
    const int row = first_row + j;
    if (row >= args.m) return;
    uint32_t pairs[kAlignColumns / 2] = {};
#pragma unroll
    for (int i = 0; i < kAlignColumns; ++i) {
      // The unsigned comparison refuses -1 and whatever else does not belong into the table.
      const bool present = static_cast<uint32_t>(columns[i]) < static_cast<uint32_t>(args.k);
      const uint32_t value = present ? a[row * args.lda + columns[i]] : 0;
      pairs[i / 2] |= value << (i % 2 * 16);
    }
    uint16_t* const out = static_cast<uint16_t*>(args.out) + static_cast<int64_t>(row) * args.width;
    *reinterpret_cast<uint4*>(out + first) = uint4{pairs[0], pairs[1], pairs[2], pairs[3]};
  }
}

}  // namespace padmarlin
