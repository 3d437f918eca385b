// SPDX-License-Identifier: Apache-2.0
// cp.async.bulk: the copy engine moves contiguous bytes from global to shared memory, on behalf of
// one thread, and counts them off an mbarrier (PTX ISA, "cp.async.bulk"). sm_90.
#pragma once

#include <ptx/qualifiers.cuh>
#include <ptx/shared_memory.cuh>

namespace padmarlin::ptx {

// Both addresses and `bytes` are multiples of 16. `policy` as createpolicy_* make it.
PADMARLIN_DEVICE void bulk_copy(void* shared, const void* global, int bytes, uint64_t* barrier,
                                uint64_t policy) {
#if PADMARLIN_HAS_SM90
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1], %2, [%3], %4;" ::"r"(shared_address(shared)),
      "l"(global), "r"(bytes), "r"(shared_address(barrier)), "l"(policy)
      : "memory");
#else
  __trap();
#endif
}

// The same without a policy.
PADMARLIN_DEVICE void bulk_copy(void* shared, const void* global, int bytes, uint64_t* barrier) {
#if PADMARLIN_HAS_SM90
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1], %2, [%3];" ::"r"(shared_address(shared)),
      "l"(global), "r"(bytes), "r"(shared_address(barrier))
      : "memory");
#else
  __trap();
#endif
}

// elect.sync: true in one lane of the warp, of which all must come.
PADMARLIN_DEVICE bool elect_sync() {
#if PADMARLIN_HAS_SM90
  uint32_t elected;
  asm volatile(
      "{\n.reg .pred p;\n"
      "elect.sync _|p, 0xffffffff;\n"
      "selp.u32 %0, 1, 0, p;\n}"
      : "=r"(elected)::"memory");
  return elected != 0;
#else
  __trap();
  return false;
#endif
}

}  // namespace padmarlin::ptx
