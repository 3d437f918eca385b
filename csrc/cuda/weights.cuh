// SPDX-License-Identifier: Apache-2.0
// Loads a warp's 64 x 64 weight tiles with their scales and zeros, one after the other along K.
// Raggedness is gone by now: tiles are whole, and each k-slice names its scale row.
#pragma once

#include <ptx/cp_async.cuh>

#include "cuda/gemm.h"
#include "cuda/stage.cuh"

namespace padmarlin {

// One lane's part of its warp's loads: 16 bytes of each plane, and 16 of the scales of k-slice
// lane / 8. Addresses move by constants from tile to tile, and the scale row of a tile is read when
// the tile before it is loaded, so that no load waits for another.
template <int kBits, bool kAsymmetric>
class WeightLoader {
 public:
  // Column tile n_tile from k_tile on.
  PADMARLIN_DEVICE void seek(const GemmArguments& args, int n_tile, int k_tile, int lane) {
    const int k_tiles = args.padded_k / kTile;
    tile_ = reinterpret_cast<const uint8_t*>(args.qweight) + lane * 16 +
            (static_cast<size_t>(n_tile) * k_tiles + k_tile) * tile_bytes(kBits);
    const int column = n_tile * kTile + lane % 8 * 8;
    scales_ = static_cast<const uint16_t*>(args.scales) + column;
    if constexpr (kAsymmetric) zeros_ = args.zeros + column;
    name_row(args, k_tile, lane);
  }

  // Copies the tile to this lane's place in the warp's part of a stage.
  PADMARLIN_DEVICE void load(const GemmArguments& args, uint64_t policy, uint8_t* place) const {
    using Layout = Stage<kBits, kAsymmetric, 1>;
    // First, for nothing keeps them: the scales wait for their row's number, which at the start of
    // a kernel comes from memory.
#pragma unroll
    for (int plane = 0; plane < kSlicesPerTile * planes(kBits); ++plane) {
      constexpr int kPlaneBytes = kPlaneWords * 4;
      ptx::cp_async_hint(place + plane * kPlaneBytes, tile_ + plane * kPlaneBytes, policy);
    }
    // A row outside the table cannot come from repack; it must still not be read.
    const uint32_t last = static_cast<uint32_t>(args.scale_rows - 1);
    const uint32_t named = static_cast<uint32_t>(named_row_);
    const size_t row = named < last ? named : last;
    const size_t source = row * static_cast<uint32_t>(args.padded_n);
    ptx::cp_async<16>(place + Layout::kScales, scales_ + source, 16);
    if constexpr (kAsymmetric) ptx::cp_async<16>(place + Layout::kZeros, zeros_ + source, 16);
  }

  // On to `k_tile`, `step` tiles further along K.
  PADMARLIN_DEVICE void advance(const GemmArguments& args, int k_tile, int step, int lane) {
    tile_ += static_cast<size_t>(step) * tile_bytes(kBits);
    name_row(args, k_tile, lane);
  }

 private:
  PADMARLIN_DEVICE void name_row(const GemmArguments& args, int k_tile, int lane) {
    named_row_ = args.slice_rows[k_tile * kSlicesPerTile + lane / 8];
  }

  const uint8_t* tile_;
  const uint16_t *scales_, *zeros_;  // the lane's columns in row 0
  int named_row_;                    // of the scales, as the table has it
};

}  // namespace padmarlin
