// SPDX-License-Identifier: Apache-2.0
// What the wgmma kernel needs of the tensor cores: groups of wgmma that run in the background; and
// transposed stores.
#pragma once

#include <ptx/barrier.cuh>
#include <ptx/shared_memory.cuh>
#include <ptx/special_registers.cuh>
#include <ptx/wgmma.cuh>

#include "core/layout.h"
#include "cuda/stage.cuh"

namespace padmarlin::probes {

constexpr int kWarpgroupThreads = 4 * kWarp;

// d (64 x kColumns) = a (64 x 64) * b (64 x kColumns), in four k-slices, of which two run at a
// time. a: registers (slice, thread, 4); rows: b as kColumns rows of 64; d: registers (thread,
// kColumns / 2). One warpgroup.
template <Dtype kDtype, int kColumns>
__global__ void __launch_bounds__(kWarpgroupThreads)
    wgmma_probe(const uint4* a, const uint4* rows, float* d) {
  uint8_t* const shared = ptx::dynamic_shared();
  const int thread = ptx::tid_x();
  for (int i = thread; i < kColumns * 8; i += kWarpgroupThreads) {
    ptx::st_shared_v4(shared + activation_offset(i / 8, i % 8), rows[i]);
  }
  ptx::fence_proxy_async();
  ptx::bar_sync();
  float sums[kColumns / 2];
  uint32_t fragments[2][4];
#pragma unroll
  for (int slice = 0; slice < kSlicesPerTile; ++slice) {
    const uint4 own = a[slice * kWarpgroupThreads + thread];
    uint32_t (&fragment)[4] = fragments[slice % 2];
    fragment[0] = own.x, fragment[1] = own.y, fragment[2] = own.z, fragment[3] = own.w;
    ptx::wgmma_fence();
    ptx::wgmma_m64k16<kDtype, kColumns>(sums, fragment, ptx::swizzled_descriptor(shared, 2 * slice),
                                        slice > 0);
    ptx::wgmma_commit_group();
    ptx::wgmma_wait_group<1>();
  }
  ptx::wgmma_wait_group<0>();
#pragma unroll
  for (int i = 0; i < kColumns / 2; ++i) d[thread * (kColumns / 2) + i] = sums[i];
}

// fragments (lane, 4) to rows (32, 8) of 16 bits, as they lie in shared memory. One warp.
inline __global__ void stmatrix_probe(const uint4* fragments, uint4* rows) {
  uint8_t* const row = ptx::dynamic_shared() + ptx::tid_x() * 16;
  const uint4 own = fragments[ptx::tid_x()];
  const uint32_t fragment[4] = {own.x, own.y, own.z, own.w};
  ptx::stmatrix_x4_trans(row, fragment);
  ptx::syncwarp();
  rows[ptx::tid_x()] = ptx::ld_shared_v4(row);
}

}  // namespace padmarlin::probes
