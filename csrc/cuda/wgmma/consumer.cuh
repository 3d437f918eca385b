// SPDX-License-Identifier: Apache-2.0
// A consumer warpgroup: dequantizes weights into registers while the wgmma before them run.
//
// What ptxas must not find here, or it serializes every wgmma (C7510 and others; the build fails):
// a call that is not inlined, a trap or an assertion anywhere in the kernel, a wgmma under a
// condition, an accumulator that is touched between wgmma, a wait at an mbarrier amid a turn.
#pragma once

#include <ptx/barrier.cuh>
#include <ptx/mbarrier.cuh>
#include <ptx/shared_memory.cuh>
#include <ptx/wgmma.cuh>

#include "cuda/dequant.cuh"
#include "cuda/wgmma/ring.cuh"

namespace padmarlin::wgmma {

// Which weights a thread has. A warp's 16 x 2 columns are half of a tile: two of each lane's four
// words. Warps 0, 1 have the first tile of their warpgroup, 2, 3 the second. Lanes 8i .. 8i + 7
// take the first or the second half of their 16 bytes in turns: so 8-byte loads meet no bank
// conflict.
struct Lane {
  int consumer, warp, lane;  // of the block, of the warpgroup, of the warp

  PADMARLIN_DEVICE int tile() const { return consumer * kTilesPerConsumer + warp / 2; }
  PADMARLIN_DEVICE int half() const { return (warp ^ lane >> 3) & 1; }
  // Column inside the tile of row 16 * warp + g + 8 * row_half of wgmma j.
  PADMARLIN_DEVICE int column(int j, int row_half) const {
    return 32 * half() + 16 * j + 8 * row_half + lane / 4;
  }
};

// A thread's packed weights of one k-tile: words of wgmma j = 0, 1.
template <int kBits>
struct PackedWeights {
  uint32_t words[kSlicesPerTile][2][planes(kBits)];
};

template <int kBits>
PADMARLIN_DEVICE void load_weights(const uint8_t* tile, const Lane& lane,
                                   PackedWeights<kBits>& packed) {
  const uint8_t* const own = tile + lane.lane * 16 + lane.half() * 8;
#pragma unroll
  for (int slice = 0; slice < kSlicesPerTile; ++slice) {
#pragma unroll
    for (int plane = 0; plane < planes(kBits); ++plane) {
      const uint2 pair = ptx::ld_shared_v2(own + (slice * planes(kBits) + plane) * kPlaneWords * 4);
      packed.words[slice][0][plane] = pair.x;
      packed.words[slice][1][plane] = pair.y;
    }
  }
}

// acc[j] += wgmma j's weights times the activations, over the k-tiles of a segment.
template <Dtype kDtype, int kBits, Dequant kDequant, bool kAsymmetric, int kRows>
PADMARLIN_DEVICE void multiply_segment(
    const Shared<kRows, kBits, kAsymmetric>& shared, const Lane& lane, int k_tiles,
    typename Shared<kRows, kBits, kAsymmetric>::Position& position, float (&acc)[2][kRows / 2]) {
  using Weights = Dequantizer<kDtype, kBits, kDequant, kAsymmetric>;
  constexpr StageLayout kStage = Shared<kRows, kBits, kAsymmetric>::kStage;
  constexpr int kSets = groups_in_flight(kRows);
  static_assert(kSets >= 2 && kSets <= kSlicesPerTile);

  uint32_t weights[kSets][2][4];  // of the groups that run
  int used_before = -1;           // the slot of the turn before: wgmma still read it
#pragma unroll 1
  for (int turn = 0; turn < k_tiles; ++turn) {
    const int slot = position.slot;
    const uint8_t* const stage = shared.stage(slot);
    ptx::mbarrier_wait_parity(shared.full(slot), position.parity);

    PackedWeights<kBits> packed;
    load_weights<kBits>(stage + kStage.weights + lane.tile() * tile_bytes(kBits), lane, packed);
    const uint4 places = ptx::ld_shared_v4(shared.places(slot));
    const uint32_t place[kSlicesPerTile] = {places.x, places.y, places.z, places.w};
    const uint8_t* const scales =
        stage + kStage.scales + lane.tile() * kTile * 2 + lane.lane / 4 * 16 + lane.half() * 8;
    const uint64_t activations = ptx::swizzled_descriptor(stage, 0);

#pragma unroll
    for (int slice = 0; slice < kSlicesPerTile; ++slice) {
      const uint8_t* const own = scales + place[slice] * kScaleRowBytes;
      const uint2 scale = ptx::ld_shared_v2(own);
      uint2 zero = {0, 0};
      if constexpr (kAsymmetric) zero = ptx::ld_shared_v2(own + kStage.zeros - kStage.scales);

      uint32_t (&set)[2][4] = weights[slice % kSets];
      Weights::fragment(packed.words[slice][0], Weights::columns(scale.x, zero.x), set[0]);
      Weights::fragment(packed.words[slice][1], Weights::columns(scale.y, zero.y), set[1]);
      ptx::wgmma_fence();
      // A k-slice is 32 bytes further: two units of a descriptor. The first one overwrites.
      const bool accumulate = slice > 0 || turn > 0;
      ptx::wgmma_m64k16<kDtype, kRows>(acc[0], set[0], activations + 2 * slice, accumulate);
      ptx::wgmma_m64k16<kDtype, kRows>(acc[1], set[1], activations + 2 * slice, accumulate);
      ptx::wgmma_commit_group();
      // The oldest group is done: its set of registers is the next to be written.
      ptx::wgmma_wait_group<kSets - 1>();
      // As many groups of this turn as may run: those of the turn before are done. So every value
      // that generic loads brought from its slot is used: none can still be read when the copy
      // engine writes there, although no proxy fence stands between ("Async proxy"; so CUTLASS).
      if (slice == kSets - 2) {
        ptx::syncwarp();
        if (used_before >= 0 && lane.lane == 0) ptx::mbarrier_arrive(shared.empty(used_before));
      }
    }
    used_before = slot;
    position.advance();
  }
  ptx::wgmma_wait_group<0>();
  ptx::syncwarp();
  if (lane.lane == 0) ptx::mbarrier_arrive(shared.empty(used_before));
}

}  // namespace padmarlin::wgmma
