// SPDX-License-Identifier: Apache-2.0
// A ring of bulk copies: one warp brings, one warp takes. With the mistakes to make on request that
// the emulator must find; not for the device, where they are undefined.
#pragma once

#include <ptx/barrier.cuh>
#include <ptx/bulk_copy.cuh>
#include <ptx/cp_async.cuh>
#include <ptx/mbarrier.cuh>
#include <ptx/shared_memory.cuh>
#include <ptx/special_registers.cuh>

#include "core/layout.h"

namespace padmarlin::probes {

enum class BulkFault {
  kNone,
  kNoFullWait,    // takes what the copy engine has not brought
  kNoEmptyWait,   // brings while the slot is still being read
  kFreedEarly,    // frees the slot before it is read
  kTooFewBytes,   // announces half of what it copies
  kTooManyBytes,  // announces what nobody copies
  kNoFence,       // the copy engine has never seen the barriers
  kNoInit,
  kArrivesTwice,  // frees each slot twice
  kExitWithCopies,
  kMisalignedShared,
  kMisalignedGlobal,
  kGlobalOutOfRange,
};

constexpr int kBulkThreads = 2 * kWarp;
constexpr int kBulkSlots = 2;
constexpr int kBulkBytes = 16 * kWarp;  // of a slot
constexpr int kBulkSharedBytes = kBulkSlots * (kBulkBytes + 16);

// Copies `chunks` of kBulkBytes, each with its 16-byte pieces in reverse order. One block.
template <BulkFault kFault>
__global__ void bulk_pipeline_probe(const uint8_t* in, int chunks, uint4* out) {
  uint8_t* const slots = ptx::dynamic_shared();
  auto* const full = reinterpret_cast<uint64_t*>(slots + kBulkSlots * kBulkBytes);
  uint64_t* const empty = full + kBulkSlots;
  const int warp = ptx::tid_x() / kWarp, lane = ptx::tid_x() % kWarp;
  if (ptx::tid_x() == 0 && kFault != BulkFault::kNoInit) {
    for (int slot = 0; slot < kBulkSlots; ++slot) {
      ptx::mbarrier_init(full + slot, 1);
      ptx::mbarrier_init(empty + slot, 1);
    }
    if (kFault != BulkFault::kNoFence) ptx::fence_mbarrier_init();
  }
  ptx::bar_sync();

  if (warp == 0) {
    if (!ptx::elect_sync()) return;
    const uint64_t policy = ptx::createpolicy_evict_first();
    for (int chunk = 0; chunk < chunks; ++chunk) {
      const int slot = chunk % kBulkSlots, round = chunk / kBulkSlots;
      uint8_t* to = slots + slot * kBulkBytes;
      const uint8_t* from = in + chunk * kBulkBytes;
      if (kFault == BulkFault::kMisalignedShared) to += 8;
      if (kFault == BulkFault::kMisalignedGlobal) from += 8;
      if (kFault == BulkFault::kGlobalOutOfRange) from += 16;
      if (kFault != BulkFault::kNoEmptyWait) ptx::mbarrier_wait_parity(empty + slot, ~round & 1);
      // The first half may well be there before this thread arrives.
      constexpr int kHalf = kBulkBytes / 2;
      ptx::mbarrier_expect_tx(full + slot, kHalf);
      ptx::bulk_copy(to, from, kHalf, full + slot, policy);
      ptx::mbarrier_arrive_expect_tx(full + slot, kFault == BulkFault::kTooFewBytes    ? 0
                                                  : kFault == BulkFault::kTooManyBytes ? 3 * kHalf
                                                                                       : kHalf);
      ptx::bulk_copy(to + kHalf, from + kHalf, kHalf, full + slot);
    }
    return;
  }
  if (kFault == BulkFault::kExitWithCopies) return;
  for (int chunk = 0; chunk < chunks; ++chunk) {
    const int slot = chunk % kBulkSlots, round = chunk / kBulkSlots;
    if (kFault != BulkFault::kNoFullWait) ptx::mbarrier_wait_parity(full + slot, round & 1);
    if (kFault == BulkFault::kFreedEarly && lane == 0) ptx::mbarrier_arrive(empty + slot);
    out[chunk * kWarp + kWarp - 1 - lane] =
        ptx::ld_shared_v4(slots + slot * kBulkBytes + 16 * lane);
    if (kFault == BulkFault::kFreedEarly) continue;
    ptx::syncwarp();
    if (lane == 0) ptx::mbarrier_arrive(empty + slot);
    if (kFault == BulkFault::kArrivesTwice && lane == 0) ptx::mbarrier_arrive(empty + slot);
  }
}

}  // namespace padmarlin::probes
