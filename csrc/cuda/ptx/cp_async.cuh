// SPDX-License-Identifier: Apache-2.0
// cp.async: global -> shared copies that complete in the background (PTX ISA, sm_80+).
#pragma once

#include <ptx/qualifiers.cuh>
#include <ptx/shared_memory.cuh>

namespace padmarlin::ptx {

// Copies `source_bytes` (0..kBytes) and fills the rest of kBytes with zeros. Both pointers are
// kBytes aligned. 16-byte copies bypass L1 (.cg); narrower ones have only .ca.
template <int kBytes>
PADMARLIN_DEVICE void cp_async(void* shared, const void* global, int source_bytes) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16, "cp.async copies 4, 8 or 16 bytes");
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
                 "l"(global), "r"(source_bytes)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(shared)),
                 "l"(global), "n"(kBytes), "r"(source_bytes)
                 : "memory");
  }
}

// 16 bytes or nothing: a predicate, where an `if` would be a branch and a point to meet again.
PADMARLIN_DEVICE void cp_async_if(bool present, void* shared, const void* global) {
  asm volatile(
      "{\n.reg .pred p;\n"
      "setp.ne.u32 p, %2, 0;\n"
      "@p cp.async.cg.shared.global [%0], [%1], 16;\n}" ::"r"(shared_address(shared)),
      "l"(global), "r"(static_cast<uint32_t>(present))
      : "memory");
}

// An L2 policy for data read once: packed weights should not push activations out of L2.
PADMARLIN_DEVICE uint64_t createpolicy_evict_first() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

// That of an access without a policy.
PADMARLIN_DEVICE uint64_t createpolicy_evict_normal() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

// 16 bytes under an L2 policy.
PADMARLIN_DEVICE void cp_async_hint(void* shared, const void* global, uint64_t policy) {
  asm volatile(
      "cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
      "l"(global), "l"(policy)
      : "memory");
}

PADMARLIN_DEVICE void cp_async_commit_group() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until at most kPending of this thread's newest groups are still in flight.
template <int kPending>
PADMARLIN_DEVICE void cp_async_wait_group() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

}  // namespace padmarlin::ptx
