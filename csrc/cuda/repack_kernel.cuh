// SPDX-License-Identifier: Apache-2.0
// A checkpoint's words -> tiles. One block per tile; each thread gathers the codes of its output
// words. Runs once per weight, so it is written to be read.
#pragma once

#include <ptx/special_registers.cuh>

#include "core/layout.h"
#include "core/packing.h"
#include "cuda/repack.h"

namespace padmarlin {

constexpr int kRepackThreads = 128;

constexpr int64_t repack_blocks(int padded_n, int padded_k) {
  return static_cast<int64_t>(padded_n / kTile) * (padded_k / kTile);
}

// The code that belongs at (padded row k, padded column n).
template <int kBits, Packing kPacking>
PADMARLIN_DEVICE uint32_t source_code(const RepackArguments& args, int k, int n) {
  const int row = args.source_rows[k];
  if (row >= 0 && n < args.n) {
    const auto [word_row, word_column, bit] =
        code_address(kPacking, kBits, row, args.first_column + n);
    if (word_row < args.word_rows && word_column < args.word_columns) {
      return args.words[word_row * args.ldw + word_column] >> bit & ((1u << kBits) - 1);
    }
  }
  if (args.pad_codes == nullptr) return 1u << (kBits - 1);
  const uint32_t last = static_cast<uint32_t>(args.scale_rows - 1);
  const uint32_t named = static_cast<uint32_t>(args.slice_rows[k / kSlice]);
  const size_t scale_row = named < last ? named : last;
  return args.pad_codes[scale_row * args.padded_n + n];
}

// Grid (repack_blocks), kRepackThreads threads.
template <int kBits, Packing kPacking>
__global__ void __launch_bounds__(kRepackThreads) repack_kernel(RepackArguments args) {
  const int k_tiles = args.padded_k / kTile;
  const int k0 = ptx::ctaid_x() % k_tiles * kTile, n0 = ptx::ctaid_x() / k_tiles * kTile;
  uint32_t* tile = args.out + static_cast<size_t>(ptx::ctaid_x()) * tile_words(kBits);

  for (int word = ptx::tid_x(); word < tile_words(kBits); word += kRepackThreads) {
    // word = [slice][plane][lane = 4g + t][j], as code_position() in core/layout.h has it.
    const int slice = word / atom_words(kBits), plane = word / kPlaneWords % planes(kBits);
    const int lane = word / kWordsPerLane % kWarp, j = word % kWordsPerLane;
    const int g = lane / 4, t = lane % 4;
    uint32_t packed = 0;
#pragma unroll
    for (int k_half = 0; k_half < 2; ++k_half) {
      if (kBits == 8 && k_half != plane) continue;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int column_half = 0; column_half < 2; ++column_half) {
          const int k = k0 + kSlice * slice + 8 * k_half + 2 * t + half;
          const int n = n0 + 16 * j + 8 * column_half + g;
          const int bit = field_bit(args.field_base, kBits, column_half, k_half);
          packed |= rotate16(source_code<kBits, kPacking>(args, k, n), bit) << (16 * half);
        }
      }
    }
    tile[word] = packed;
  }
}

using RepackKernel = void (*)(RepackArguments);

// The kernel for a packing; null if there is no such packing of codes of so many bits.
inline RepackKernel repack_kernel_for(Packing packing, int bits) {
  if (!packs(packing, bits)) return nullptr;
  switch (packing) {
    case Packing::kGptq:
      return bits == 4 ? repack_kernel<4, Packing::kGptq> : repack_kernel<8, Packing::kGptq>;
    case Packing::kAwq:
      return repack_kernel<4, Packing::kAwq>;
    case Packing::kCompressedTensors:
      return bits == 4 ? repack_kernel<4, Packing::kCompressedTensors>
                       : repack_kernel<8, Packing::kCompressedTensors>;
  }
  return nullptr;
}

}  // namespace padmarlin
