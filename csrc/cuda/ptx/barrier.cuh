// SPDX-License-Identifier: Apache-2.0
// Barriers.
#pragma once

#include <ptx/qualifiers.cuh>

namespace padmarlin::ptx {

// bar.sync 0: all threads of the block; orders their shared and global memory accesses.
PADMARLIN_DEVICE void bar_sync() { __syncthreads(); }

// bar.sync: `threads` threads of whole warps that come to barrier `id` (1..15; 0 is the one above);
// orders their accesses.
PADMARLIN_DEVICE void bar_sync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// All lanes of the warp: orders their shared and global memory accesses.
PADMARLIN_DEVICE void syncwarp() { __syncwarp(); }

// Orders this thread's accesses to shared memory before later ones of wgmma and the copy engine
// (the async proxy). Below sm_90 there are neither.
PADMARLIN_DEVICE void fence_proxy_async() {
#if PADMARLIN_HAS_SM90
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

}  // namespace padmarlin::ptx
