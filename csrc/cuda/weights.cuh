// SPDX-License-Identifier: Apache-2.0
// Loads a warp's 64 x 64 weight tiles with their scales and zeros, one after the other along K.
// Raggedness is gone by now: tiles are whole, and each k-slice names its scale row.
#pragma once

#include <ptx/bits.cuh>
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
    column_ = n_tile * (kTile / kEight) + lane % 8;
    names_ = args.slice_rows + k_tile * kSlicesPerTile + lane / 8;
    named_row_ = *names_;
  }

  // A warp past N only helps to load A.
  PADMARLIN_DEVICE bool exist(const GemmArguments& args) const {
    return column_ < static_cast<uint32_t>(args.padded_n) / kEight;
  }

  // Instead of `seek`'s, in the kernel's first segment: every step-th tile of [k_tile, k_end).
  // Lanes that would all read one tile's names read those of the next tiles too: these are then in
  // L1, and the first loads wait for memory once, not once for each stage.
  static PADMARLIN_DEVICE int first_name(const GemmArguments& args, int k_tile, int k_end, int step,
                                         int lane) {
    const int ahead = k_tile + lane % kStages * step;
    const int read = ahead < k_end ? ahead : k_end - 1;
    return ptx::shfl(args.slice_rows[read * kSlicesPerTile + lane / 8], lane / 8 * 8);
  }
  PADMARLIN_DEVICE void set_name(int name) { named_row_ = name; }

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
    const uint32_t row = named < last ? named : last;
    const uint32_t source = row * (static_cast<uint32_t>(args.padded_n) / kEight) + column_;
    ptx::cp_async<16>(place + Layout::kScales, static_cast<const uint4*>(args.scales) + source, 16);
    if constexpr (kAsymmetric) {
      ptx::cp_async<16>(place + Layout::kZeros, reinterpret_cast<const uint4*>(args.zeros) + source,
                        16);
    }
  }

  // On by `step` tiles along K.
  PADMARLIN_DEVICE void advance(int step) {
    tile_ += static_cast<int64_t>(step) * tile_bytes(kBits);
    names_ += static_cast<int64_t>(step) * kSlicesPerTile;
    named_row_ = *names_;
  }

 private:
  static constexpr int kEight = 8;  // scales or zeros in 16 bytes; fewer than 2^32 of these exist

  const uint8_t* tile_;
  const int32_t* names_;  // the lane's k-slice in the table of scale rows
  int named_row_;         // of the scales, as the table has it
  uint32_t column_;       // the lane's eight columns among those of a row
};

}  // namespace padmarlin
