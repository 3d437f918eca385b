// SPDX-License-Identifier: Apache-2.0
// Loads a warp's 64 x 64 weight tile with its scales and zeros. Raggedness is gone by now: tiles
// are whole, and each k-slice names its scale row.
#pragma once

#include <ptx/cp_async.cuh>

#include "cuda/gemm.h"
#include "cuda/stage.cuh"

namespace padmarlin {

// Four k-slices of 64 16-bit values (128 bytes each): eight lanes copy one slice's row.
PADMARLIN_DEVICE void load_scale_rows(uint8_t* shared, const void* rows, size_t row, int padded_n,
                                      int n_tile, int lane) {
  const uint16_t* source = static_cast<const uint16_t*>(rows) + row * padded_n + n_tile * kTile;
  ptx::cp_async<16>(shared + lane * 16, source + lane % 8 * 8, 16);
}

template <int kBits, bool kAsymmetric, typename StageLayout>
PADMARLIN_DEVICE void load_weights(const GemmArguments& args, uint64_t policy, uint8_t* stage,
                                   int warp, int lane, int n_tile, int k_tile) {
  const int k_tiles = args.padded_k / kTile;
  const uint32_t* tile =
      args.qweight + (static_cast<size_t>(n_tile) * k_tiles + k_tile) * tile_words(kBits);
  uint8_t* weights = stage + StageLayout::kWeights + warp * tile_bytes(kBits);
#pragma unroll
  for (int plane = 0; plane < kSlicesPerTile * planes(kBits); ++plane) {
    const int word = plane * kPlaneWords + lane * kWordsPerLane;
    ptx::cp_async_hint(weights + word * 4, tile + word, policy);
  }

  // A row outside the table cannot come from repack; it must still not be read.
  const uint32_t last = static_cast<uint32_t>(args.scale_rows - 1);
  const uint32_t named = static_cast<uint32_t>(args.slice_rows[k_tile * kSlicesPerTile + lane / 8]);
  const size_t row = named < last ? named : last;
  const int offset = warp * StageLayout::kTileScaleBytes;
  load_scale_rows(stage + StageLayout::kScales + offset, args.scales, row, args.padded_n, n_tile,
                  lane);
  if constexpr (kAsymmetric) {
    load_scale_rows(stage + StageLayout::kZeros + offset, args.zeros, row, args.padded_n, n_tile,
                    lane);
  }
}

}  // namespace padmarlin
