// SPDX-License-Identifier: Apache-2.0
// Loads a block's activations in place: no copy of A, no read outside its rows, zeros where the
// padded K has no column. Zero weights would not excuse a wrong read: 0 * NaN is NaN.
#pragma once

#include <ptx/cp_async.cuh>
#include <ptx/shared_memory.cuh>
#include <ptx/special_registers.cuh>

#include "cuda/gemm.h"
#include "cuda/stage.cuh"

namespace padmarlin {

// The widest copy that every piece of A allows: the largest power of two <= 16 that divides the
// address, the row stride and the offset of column 0. 2: elements, by plain loads.
PADMARLIN_DEVICE int activation_copy_bytes(const GemmArguments& args) {
  if (args.columns != nullptr) return 2;
  const uint64_t all = reinterpret_cast<uint64_t>(args.a) | static_cast<uint64_t>(args.lda) * 2 |
                       static_cast<uint64_t>(args.front_pad) * 2 | 16;
  return static_cast<int>(all & (~all + 1));
}

// One 16-byte chunk of a row in pieces of kBytes. A piece is whole, cut by the end of K, or absent;
// the front pad is a multiple of it, so the head never cuts one.
template <int kBytes>
PADMARLIN_DEVICE void copy_chunk(const GemmArguments& args, uint8_t* shared, int row, int column) {
  constexpr int kElements = kBytes / 2;
  const uint16_t* a = static_cast<const uint16_t*>(args.a);
#pragma unroll
  for (int piece = 0; piece < 16 / kBytes; ++piece) {
    const int first = column + piece * kElements;
    const int left = row < args.m && first >= 0 ? args.k - first : 0;
    const int present = left <= 0 ? 0 : left < kElements ? left : kElements;
    const uint16_t* source = present > 0 ? a + row * args.lda + first : a;
    ptx::cp_async<kBytes>(shared + piece * kBytes, source, present * 2);
  }
}

// One chunk element by element, through the column table if there is one.
PADMARLIN_DEVICE void gather_chunk(const GemmArguments& args, uint8_t* shared, int row,
                                   int padded_row) {
  const uint16_t* a = static_cast<const uint16_t*>(args.a);
  uint32_t pairs[4] = {};
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int column =
        args.columns != nullptr ? args.columns[padded_row + i] : padded_row + i - args.front_pad;
    // The unsigned comparison refuses -1 and whatever else does not belong into the table.
    const bool present =
        row < args.m && static_cast<uint32_t>(column) < static_cast<uint32_t>(args.k);
    const uint32_t value = present ? a[row * args.lda + column] : 0;
    pairs[i / 2] |= value << (i % 2 * 16);
  }
  ptx::st_shared_v4(shared, uint4{pairs[0], pairs[1], pairs[2], pairs[3]});
}

// Rows [m0, m0 + kRows) of the 64 padded rows of `k_tile`, by all threads of the block.
template <int kRows>
PADMARLIN_DEVICE void load_activations(const GemmArguments& args, int copy_bytes, uint8_t* shared,
                                       int m0, int k_tile) {
#pragma unroll
  for (int i = ptx::tid_x(); i < kRows * 8; i += kBlockThreads) {
    const int row = i / 8, chunk = i % 8;
    uint8_t* destination = shared + activation_offset(row, chunk);
    const int padded_row = k_tile * kTile + chunk * 8;
    const int column = padded_row - args.front_pad;
    switch (copy_bytes) {
      case 16:
        copy_chunk<16>(args, destination, m0 + row, column);
        break;
      case 8:
        copy_chunk<8>(args, destination, m0 + row, column);
        break;
      case 4:
        copy_chunk<4>(args, destination, m0 + row, column);
        break;
      default:
        gather_chunk(args, destination, m0 + row, padded_row);
        break;
    }
  }
}

}  // namespace padmarlin
