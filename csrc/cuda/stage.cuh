// SPDX-License-Identifier: Apache-2.0
// Where things lie in one stage of the gemm pipeline: 64 rows of K for one group of warps.
//
//   activations   (8 * kMSteps rows, 8 chunks of 16 bytes); chunk c of row r lies at chunk
//                 r * 8 + (c ^ r % 8), so that the eight rows that ldmatrix reads together fall in
//                 eight different bank groups
//   for each warp of the group:
//     weights     its 64 x 64 tile as it lies in global memory
//     scales      (4 k-slices, 64 columns)
//     zeros       the same, asymmetric only
#pragma once

#include <ptx/shared_memory.cuh>

#include "core/mma_block.h"

namespace padmarlin {

template <int kBits, bool kAsymmetric, int kMSteps>
struct Stage {
  static constexpr int kWarps = activation_bytes(kMSteps);  // the first warp's part
  static constexpr int kWarpBytes = warp_stage_bytes(kBits, kAsymmetric);
  // Inside a warp's part:
  static constexpr int kScales = tile_bytes(kBits);
  static constexpr int kZeros = kScales + kScaleBytes;
};

// The swizzle is an exclusive or: so is a move by `bytes`, chunks and a power of two, inside a row.
PADMARLIN_DEVICE uint8_t* flip(const uint8_t* place, int bytes) {
  return ptx::shared_pointer(ptx::shared_address(place) ^ static_cast<uint32_t>(bytes));
}

constexpr int activation_offset(int row, int chunk) { return (row * 8 + (chunk ^ (row & 7))) * 16; }

}  // namespace padmarlin
