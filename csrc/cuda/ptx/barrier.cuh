// SPDX-License-Identifier: Apache-2.0
// Barriers.
#pragma once

#include <ptx/qualifiers.cuh>

namespace padmarlin::ptx {

// bar.sync 0: all threads of the block; orders their shared and global memory accesses.
PADMARLIN_DEVICE void bar_sync() { __syncthreads(); }

// All lanes of the warp: orders their shared and global memory accesses.
PADMARLIN_DEVICE void syncwarp() { __syncwarp(); }

}  // namespace padmarlin::ptx
