// SPDX-License-Identifier: Apache-2.0
// cp.async under an L2 policy, which must change how long data stays in L2 and nothing else.
#pragma once

#include <ptx/cp_async.cuh>
#include <ptx/shared_memory.cuh>
#include <ptx/special_registers.cuh>

namespace padmarlin::probes {

// 16 bytes of `in` per thread to shared memory and on to `out`. One block.
inline __global__ void policy_copy_probe(const uint4* in, uint4* out) {
  const int thread = ptx::tid_x();
  uint8_t* const shared = ptx::dynamic_shared() + 16 * thread;
  ptx::cp_async_hint(
      shared, in + thread,
      thread % 2 == 0 ? ptx::createpolicy_evict_first() : ptx::createpolicy_evict_normal());
  ptx::cp_async_commit_group();
  ptx::cp_async_wait_group<0>();
  out[thread] = ptx::ld_shared_v4(shared);
}

}  // namespace padmarlin::probes
