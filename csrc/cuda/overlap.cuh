// SPDX-License-Identifier: Apache-2.0
// The beginning of a kernel: its first weights travel to L2, and, if it may start before the one in
// front of it has ended, nothing else of it does until then (docs/kernel-schedule.md).
#pragma once

#include <ptx/global_memory.cuh>
#include <ptx/grid_dependency.cuh>

#include "core/layout.h"

namespace padmarlin {

// The first weights of one warp, by all of its lanes: k-tiles k_tile, k_tile + step, ... < k_end of
// the tensor's column tile n_tile, as many as the warp will have in flight. Its copies then wait
// for L2 at most, however late they come. Safe even for weights that the kernel before writes: what
// it stores goes to the same L2.
template <int kBits, int kAhead>
PADMARLIN_DEVICE void prefetch_weights(const uint32_t* qweight, int k_tiles, int n_tile, int k_tile,
                                       int k_end, int step, int lane) {
  constexpr int kLineWords = 128 / 4, kLines = tile_words(kBits) / kLineWords;
#pragma unroll
  for (int line = lane; line < kAhead * kLines; line += kWarp) {
    const int ahead = k_tile + line / kLines * step;
    if (ahead >= k_end) return;
    const int64_t tile = static_cast<int64_t>(n_tile) * k_tiles + ahead;
    ptx::prefetch_l2(qweight + tile * tile_words(kBits) + line % kLines * kLineWords);
  }
}

// By all threads, before anything but the weights is read and before anything is written:
// activations, output, partial tiles and counters may still be the kernel's before. It has ended
// then, so the next one may come.
PADMARLIN_DEVICE void wait_for_previous_kernel() {
  ptx::griddepcontrol_wait();
  ptx::griddepcontrol_launch_dependents();
}

}  // namespace padmarlin
