// SPDX-License-Identifier: Apache-2.0
// The producer: one thread that fills the ring. The copy engine does the work.
#pragma once

#include <ptx/bulk_copy.cuh>
#include <ptx/cp_async.cuh>
#include <ptx/mbarrier.cuh>
#include <ptx/shared_memory.cuh>
#include <ptx/tma.cuh>

#include "core/select_gemm.h"
#include "cuda/gemm.h"
#include "cuda/wgmma/ring.cuh"

namespace padmarlin::wgmma {

// The scale rows of a k-tile's four k-slices, as the table names them.
struct SliceRows {
  int named[kSlicesPerTile];
};

PADMARLIN_DEVICE SliceRows slice_rows(const GemmArguments& args, int k_tile) {
  SliceRows rows;
#pragma unroll
  for (int slice = 0; slice < kSlicesPerTile; ++slice) {
    rows.named[slice] = args.slice_rows[k_tile * kSlicesPerTile + slice];
  }
  return rows;
}

// A place is needed where the row differs from that of the slice before.
PADMARLIN_DEVICE bool begins_place(const SliceRows& rows, int slice) {
  return slice == 0 || rows.named[slice] != rows.named[slice - 1];
}

// What comes without a look into the table: A and the weights. Announced, but not yet arrived at:
// the table may have to come from memory first, and these must not wait for it.
template <int kRows, int kBits, bool kAsymmetric>
PADMARLIN_DEVICE void bring_operands(const GemmArguments& args, const ptx::TensorMap& map,
                                     const Shared<kRows, kBits, kAsymmetric>& shared, int slot,
                                     int m0, int n_tile, int k_tile, int tiles, uint64_t policy) {
  constexpr StageLayout kStage = Shared<kRows, kBits, kAsymmetric>::kStage;
  uint64_t* const full = shared.full(slot);
  uint8_t* const stage = shared.stage(slot);
  ptx::mbarrier_expect_tx(full, kRows * kActivationRowBytes + tiles * tile_bytes(kBits));
  // Columns before A's first (the front pad) and behind its last, and rows behind its last, arrive
  // as zeros.
  ptx::tma_load_2d(stage, map, k_tile * kTile - args.front_pad, m0, full);

  const int k_tiles = args.padded_k / kTile;
  const uint32_t* const weights =
      args.qweight + (static_cast<size_t>(n_tile) * k_tiles + k_tile) * tile_words(kBits);
  for (int tile = 0; tile < tiles; ++tile) {
    ptx::bulk_copy(stage + kStage.weights + tile * tile_bytes(kBits),
                   weights + static_cast<size_t>(tile) * k_tiles * tile_words(kBits),
                   tile_bytes(kBits), full, policy);
  }
}

template <int kRows, int kBits, bool kAsymmetric>
PADMARLIN_DEVICE void bring_scales(const GemmArguments& args,
                                   const Shared<kRows, kBits, kAsymmetric>& shared, int slot,
                                   int n_tile, int tiles, const SliceRows& rows) {
  constexpr StageLayout kStage = Shared<kRows, kBits, kAsymmetric>::kStage;
  const int scale_bytes = tiles * kTile * 2;

  int places[kSlicesPerTile];
#pragma unroll
  for (int slice = 0; slice < kSlicesPerTile; ++slice) {
    places[slice] = slice == 0 ? 0 : places[slice - 1] + begins_place(rows, slice);
  }
  const int num_places = places[kSlicesPerTile - 1] + 1;
  // Before the arrival, whose release shows it to the consumers.
  ptx::st_shared_v4(shared.places(slot),
                    uint4{static_cast<uint32_t>(places[0]), static_cast<uint32_t>(places[1]),
                          static_cast<uint32_t>(places[2]), static_cast<uint32_t>(places[3])});

  uint64_t* const full = shared.full(slot);
  uint8_t* const stage = shared.stage(slot);
  ptx::mbarrier_arrive_expect_tx(full, num_places * scale_bytes * (kAsymmetric ? 2 : 1));
#pragma unroll
  for (int slice = 0; slice < kSlicesPerTile; ++slice) {
    if (!begins_place(rows, slice)) continue;
    // A row outside the table cannot come from repack; it must still not be read.
    const uint32_t last = static_cast<uint32_t>(args.scale_rows - 1);
    const uint32_t named = static_cast<uint32_t>(rows.named[slice]);
    const size_t row = named < last ? named : last;
    const size_t source = row * args.padded_n + n_tile * kTile;
    const int place = places[slice] * kScaleRowBytes;
    ptx::bulk_copy(stage + kStage.scales + place,
                   static_cast<const uint16_t*>(args.scales) + source, scale_bytes, full);
    if constexpr (kAsymmetric) {
      ptx::bulk_copy(stage + kStage.zeros + place, args.zeros + source, scale_bytes, full);
    }
  }
}

// All stages of all segments of this block, in the order in which consumers use them. One thread.
template <int kRows, int kBits, bool kAsymmetric>
PADMARLIN_DEVICE void produce(const GemmArguments& args, const GemmChoice& choice,
                              const ptx::TensorMap& map,
                              const Shared<kRows, kBits, kAsymmetric>& shared, int block) {
  // With one row tile weights are read once; else L2 should keep them for the others.
  const uint64_t policy =
      choice.m_tiles == 1 ? ptx::createpolicy_evict_first() : ptx::createpolicy_evict_normal();
  typename Shared<kRows, kBits, kAsymmetric>::Position position;
  const int segments = num_segments(choice.partition, block);
  for (int index = 0; index < segments; ++index) {
    const Segment part = segment(choice.partition, block, index);
    const TilePosition tile = tile_position(part.tile, choice.m_tiles, choice.n_tiles, choice.band);
    const int n_tile = tile.n * kBlockTiles, left = args.padded_n / kTile - n_tile;
    const int tiles = left < kBlockTiles ? left : kBlockTiles;
    for (int k_tile = part.k_begin; k_tile < part.k_end; ++k_tile) {
      const SliceRows rows = slice_rows(args, k_tile);  // on its way while the rest is asked for
      // A round ahead of the consumers: in the first all slots are free.
      ptx::mbarrier_wait_parity(shared.empty(position.slot), position.parity ^ 1);
      bring_operands(args, map, shared, position.slot, tile.m * kRows, n_tile, k_tile, tiles,
                     policy);
      bring_scales(args, shared, position.slot, n_tile, tiles, rows);
      position.advance();
    }
  }
}

}  // namespace padmarlin::wgmma
