// SPDX-License-Identifier: Apache-2.0
// The beginning of a kernel that may start before the one in front of it has ended: its first
// weights travel to L2 meanwhile, and nothing else of it does (docs/kernel-schedule.md).
#pragma once

#include <ptx/grid_dependency.cuh>
#include <ptx/special_registers.cuh>

#include "core/layout.h"
#include "core/stream_k.h"

namespace padmarlin {

// The first `ahead` k-tiles of `run` for the 64-column tiles [n_begin, n_end), by all threads: as
// much as the block will have in flight. Safe even for weights that the kernel before writes: what
// it stores goes to the same L2.
PADMARLIN_DEVICE void prefetch_weights(const uint32_t* qweight, int bits, int k_tiles,
                                       const Segment& run, int ahead, int n_begin, int n_end) {
  const int left = run.k_end - run.k_begin;
  const int wanted = left < ahead ? left : ahead;
  const int i = ptx::tid_x();
  const int n_tile = n_begin + i / wanted;
  if (n_tile >= n_end) return;
  const int64_t tile = static_cast<int64_t>(n_tile) * k_tiles + run.k_begin + i % wanted;
  ptx::bulk_prefetch_l2(qweight + tile * tile_words(bits), tile_bytes(bits));
}

// By all threads, before anything but the weights is read and before anything is written:
// activations, output, partial tiles and counters may still be the kernel's before. It has ended
// then, so the next one may come.
PADMARLIN_DEVICE void wait_for_previous_kernel() {
  ptx::griddepcontrol_wait();
  ptx::griddepcontrol_launch_dependents();
}

}  // namespace padmarlin
