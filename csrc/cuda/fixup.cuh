// SPDX-License-Identifier: Apache-2.0
// Adds the partial tiles of blocks that share an output tile, without spinning and in a fixed
// order: every block stores its part and counts itself; the one that comes last adds all parts,
// its own among them, in the order of K. So the bits do not depend on who came last.
#pragma once

#include <ptx/global_memory.cuh>

#include "core/stream_k.h"

namespace padmarlin {

// Both may be null if no tile is shared.
struct SplitWorkspace {
  float* partials;     // num_partial_slots tiles of fp32, any content, 16-byte aligned
  uint32_t* counters;  // num_counters zeros. A launch leaves zeros.
};

constexpr int64_t partials_bytes(const Partition& partition, int tile_m, int tile_n) {
  return static_cast<int64_t>(sizeof(float)) * num_partial_slots(partition) * tile_m * tile_n;
}

// Vectors that are loaded before the first is added. One at a time would wait for L2 each: a load
// and its additions behind a condition are not taken apart by the compiler. Where there are many,
// twice as many on their way cost no register that the products had not.
constexpr int fixup_batch(int vectors) {
  return vectors >= 16 && vectors % 8 == 0 ? 8 : vectors < 4 ? vectors : 4;
}

// For all threads that `sync` joins (all of the block, or a named barrier's); true for all of them
// in the block that comes last: its `acc` then holds the sum and is ready for the epilogue.
//   threads        those below this number hold the tile, in `acc`: any array of floats, whose
//                  meaning is the kernel's. A thread reads back what the same thread of other
//                  blocks wrote, 16 bytes a lane, neighbours side by side.
//   vectors        of four floats in `acc` that are worth adding, rounded up to whole batches; all
//                  blocks say the same
//   last_to_come   a word of shared memory that nothing else uses
// Ordered by: stores, barrier, the counter's release; its acquire, barrier, loads.
template <typename Fragment, typename Sync>
PADMARLIN_DEVICE bool add_partials(const SplitWorkspace& workspace, const Partition& partition,
                                   const Segment& segment, int threads, int thread, Fragment& acc,
                                   int vectors, int* last_to_come, const Sync& sync) {
  static_assert(sizeof(Fragment) % sizeof(float4) == 0, "a thread holds whole vectors of floats");
  constexpr int kVectors = sizeof(Fragment) / sizeof(float4);
  constexpr int kBatch = fixup_batch(kVectors);
  static_assert(kVectors % kBatch == 0, "batches are whole");
  const bool holds = thread < threads;
  float* const own = reinterpret_cast<float*>(&acc);
  const auto address = [&](int split, int vector) {
    const auto slot = static_cast<int64_t>(partial_slot(partition, segment, split));
    return workspace.partials + ((slot * kVectors + vector) * threads + thread) * 4;
  };

  if (holds) {
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      if (i / kBatch * kBatch >= vectors) continue;
      const float4 part = {own[4 * i], own[4 * i + 1], own[4 * i + 2], own[4 * i + 3]};
      *reinterpret_cast<float4*>(address(segment.split, i)) = part;
    }
  }
  sync();
  if (thread == 0) {
    const uint32_t others = segment.splits - 1;
    uint32_t* const counter = workspace.counters + segment.counter;
    *last_to_come = ptx::atom_inc<ptx::Order::kAcquireRelease>(counter, others) == others;
  }
  sync();
  if (*last_to_come == 0) return false;
  if (!holds) return true;

  // From memory its own part too: no second set of accumulators is needed. Peeling or unrolling
  // this loop would cost one, and spills.
#pragma unroll
  for (int i = 0; i < 4 * kVectors; ++i) own[i] = 0.0f;
#pragma unroll 1
  for (int split = 0; split < segment.splits; ++split) {
#pragma unroll
    for (int first = 0; first < kVectors; first += kBatch) {
      if (first >= vectors) continue;
      float4 parts[kBatch];
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        parts[i] = ptx::ld_global_cg_v4(address(split, first + i));
      }
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        float* const sums = own + 4 * (first + i);
        sums[0] += parts[i].x, sums[1] += parts[i].y, sums[2] += parts[i].z, sums[3] += parts[i].w;
      }
    }
  }
  return true;
}

}  // namespace padmarlin
