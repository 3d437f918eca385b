// SPDX-License-Identifier: Apache-2.0
// Host twin of global memory that blocks share. L1 is not emulated: a load sees every store that
// has been executed.
#pragma once

#include <ptx/qualifiers.cuh>

namespace padmarlin::ptx {

enum class Order { kRelaxed, kAcquire, kRelease, kAcquireRelease };

template <Order kOrder>
PADMARLIN_DEVICE uint32_t atom_inc(uint32_t* address, uint32_t bound) {
  return emulator::atom_inc(address, bound,
                            kOrder == Order::kAcquire || kOrder == Order::kAcquireRelease,
                            kOrder == Order::kRelease || kOrder == Order::kAcquireRelease);
}

PADMARLIN_DEVICE float4 ld_global_cg_v4(const float* pointer) {
  return *reinterpret_cast<const float4*>(pointer);
}

PADMARLIN_DEVICE void prefetch_l2(const void* global) { emulator::prefetch_l2(global); }

}  // namespace padmarlin::ptx
