// SPDX-License-Identifier: Apache-2.0
// One tile brought by the tensor copy engine, from any corner: in front of the tensor, past its
// end.
#pragma once

#include <ptx/barrier.cuh>
#include <ptx/mbarrier.cuh>
#include <ptx/shared_memory.cuh>
#include <ptx/special_registers.cuh>
#include <ptx/tma.cuh>

#include "core/layout.h"

namespace padmarlin::probes {

constexpr int kTmaRows = 16;
constexpr int kTmaBytes = kTmaRows * kTile * 2;
constexpr int kTmaSharedBytes = kTmaBytes + 16;  // the tile, its mbarrier

// out: the tile as it lies in shared memory. One warp.
__global__ inline void tma_tile_probe(PADMARLIN_GRID_CONSTANT ptx::TensorMap map, int x, int y,
                                      uint4* out) {
  uint8_t* const tile = ptx::dynamic_shared();
  auto* const barrier = reinterpret_cast<uint64_t*>(tile + kTmaBytes);
  const int lane = ptx::tid_x();
  if (lane == 0) {
    ptx::mbarrier_init(barrier, 1);
    ptx::fence_mbarrier_init();
    ptx::prefetch_tensor_map(map);
  }
  ptx::bar_sync();
  if (lane == 0) {
    ptx::mbarrier_arrive_expect_tx(barrier, kTmaBytes);
    ptx::tma_load_2d(tile, map, x, y, barrier);
  }
  ptx::mbarrier_wait_parity(barrier, 0);
  for (int i = lane; i < kTmaBytes / 16; i += kWarp) out[i] = ptx::ld_shared_v4(tile + 16 * i);
}

}  // namespace padmarlin::probes
