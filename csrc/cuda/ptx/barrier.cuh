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

}  // namespace padmarlin::ptx
