// SPDX-License-Identifier: Apache-2.0
// The ring between the warpgroup that brings stages and those that use them.
#pragma once

#include <ptx/mbarrier.cuh>

#include "core/wgmma_block.h"

namespace padmarlin::wgmma {

// Where a thread is in the ring: the same sequence of slots for all.
template <int kSlots>
struct RingPosition {
  int slot = 0, parity = 0;  // parity of the rounds completed

  PADMARLIN_DEVICE void advance() {
    if (++slot == kSlots) {
      slot = 0;
      parity ^= 1;
    }
  }
};

// A block's shared memory, see core/wgmma_block.h.
template <int kRows, int kBits, bool kAsymmetric>
struct Shared {
  static constexpr StageLayout kStage = stage_layout(kRows, kBits, kAsymmetric);
  static constexpr SharedLayout kLayout = shared_layout(kRows, kBits, kAsymmetric);
  static_assert(kLayout.stages >= 3, "a ring needs three stages: one used, one freed, one brought");
  static_assert(kStage.bytes % kSwizzleBytes == 0, "stages begin where the swizzle does");
  using Position = RingPosition<kLayout.stages>;

  uint8_t* base;

  PADMARLIN_DEVICE uint8_t* stage(int slot) const { return base + slot * kStage.bytes; }
  // Four ints: in which place of the stage each k-slice has its scales.
  PADMARLIN_DEVICE uint8_t* places(int slot) const {
    return base + kLayout.places + slot * kSlicesPerTile * 4;
  }
  PADMARLIN_DEVICE uint64_t* full(int slot) const {
    return reinterpret_cast<uint64_t*>(base + kLayout.full) + slot;
  }
  PADMARLIN_DEVICE uint64_t* empty(int slot) const {
    return reinterpret_cast<uint64_t*>(base + kLayout.empty) + slot;
  }
  PADMARLIN_DEVICE uint8_t* turn(int consumer) const {
    return base + kLayout.turn + consumer * kTurnBytes;
  }
  PADMARLIN_DEVICE int* last_to_come() const {
    return reinterpret_cast<int*>(base + kLayout.last_to_come);
  }

  // By one thread, before a barrier of the block.
  PADMARLIN_DEVICE void make_barriers() const {
    for (int slot = 0; slot < kLayout.stages; ++slot) {
      ptx::mbarrier_init(full(slot), 1);                                 // the producer
      ptx::mbarrier_init(empty(slot), kConsumers * kWarpgroup / kWarp);  // each consumer warp
    }
    ptx::fence_mbarrier_init();
  }
};

}  // namespace padmarlin::wgmma
