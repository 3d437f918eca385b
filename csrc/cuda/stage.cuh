// SPDX-License-Identifier: Apache-2.0
// One stage of the gemm pipeline in shared memory: 64 rows of K for one block.
//
//   activations   (16 * kMSlices rows, 8 chunks of 16 bytes); chunk c of row r lies at chunk
//                 r * 8 + (c ^ r % 8), so that the eight rows that ldmatrix reads together fall in
//                 eight different bank groups
//   weights       (warps, tile_bytes): each warp's 64 x 64 tile as it lies in global memory
//   scales        (warps, 4 k-slices, 64 columns)
//   zeros         the same, asymmetric only
#pragma once

#include <ptx/qualifiers.cuh>

#include "core/select_tile.h"

namespace padmarlin {

// What sm_86 and sm_89 let one block have; sm_80 has 163 KB, sm_90 227 KB. One size serves all.
constexpr int kSharedLimit = 99 * 1024;
constexpr int kMaxStages = 4;

template <int kBits, int kMSlices, bool kAsymmetric>
struct Stage {
  static constexpr int kRows = 16 * kMSlices;
  static constexpr int kTileScaleBytes = kSlicesPerTile * kTile * 2;  // of one warp

  static constexpr int kActivations = 0;
  static constexpr int kWeights = kActivations + kRows * kTile * 2;
  static constexpr int kScales = kWeights + kBlockWarps * tile_bytes(kBits);
  static constexpr int kZeros = kScales + kBlockWarps * kTileScaleBytes;
  static constexpr int kBytes = kZeros + (kAsymmetric ? kBlockWarps * kTileScaleBytes : 0);

  static constexpr int kCount =
      kSharedLimit / kBytes < kMaxStages ? kSharedLimit / kBytes : kMaxStages;
  static_assert(kCount >= 2, "a pipeline needs two stages");
  static constexpr int kSharedBytes = kCount * kBytes;
};

constexpr int activation_offset(int row, int chunk) { return (row * 8 + (chunk ^ (row & 7))) * 16; }

}  // namespace padmarlin
