// SPDX-License-Identifier: Apache-2.0
// A kernel that does nothing but add: each tile is the sum of its k-tiles' terms, cut as a
// partition says. What remains of a gemm is the schedule and the addition of partial tiles.
#pragma once

#include <ptx/barrier.cuh>
#include <ptx/global_memory.cuh>
#include <ptx/grid_dependency.cuh>
#include <ptx/shared_memory.cuh>
#include <ptx/special_registers.cuh>

#include "core/layout.h"
#include "cuda/fixup.cuh"

namespace padmarlin::probes {

constexpr int kFixupSharedBytes = 16;
constexpr int kFixupIdle = kWarp;  // threads of the block that hold nothing of the tile

// terms (tiles, k_tiles, elements) to out (tiles, elements), elements = 4 * kThreads * kVectors:
// element (4i + j) of thread t is number 4 * (i * kThreads + t) + j. Grid (partition.blocks),
// kThreads + kFixupIdle threads.
template <int kThreads, int kVectors>
__global__ void fixup_probe(Partition partition, SplitWorkspace workspace, const float* terms,
                            float* out) {
  constexpr int kElements = 4 * kThreads * kVectors;
  int* const last_to_come = reinterpret_cast<int*>(ptx::dynamic_shared());
  const int thread = ptx::tid_x(), block = ptx::ctaid_x();
  const int segments = num_segments(partition, block);
  for (int index = 0; index < segments; ++index) {
    const Segment part = segment(partition, block, index);
    float acc[kVectors][4] = {};
    const auto number = [&](int i, int j) { return 4 * (i * kThreads + thread) + j; };
    if (thread < kThreads) {
      for (int k = part.k_begin; k < part.k_end; ++k) {
        const int64_t row = static_cast<int64_t>(part.tile) * partition.k_tiles + k;
        for (int i = 0; i < kVectors; ++i) {
          for (int j = 0; j < 4; ++j) acc[i][j] += terms[row * kElements + number(i, j)];
        }
      }
    }
    const bool complete =
        part.whole() || add_partials(workspace, partition, part, kThreads, thread, acc, kVectors,
                                     last_to_come, [] { ptx::bar_sync(); });
    if (!complete || thread >= kThreads) continue;
    for (int i = 0; i < kVectors; ++i) {
      for (int j = 0; j < 4; ++j) {
        out[static_cast<int64_t>(part.tile) * kElements + number(i, j)] = acc[i][j];
      }
    }
  }
}

// One thread makes `count` increments with the bounds given: what each returned. One block.
template <ptx::Order kOrder>
__global__ void atom_inc_probe(int count, uint32_t initial, const uint32_t* bounds,
                               uint32_t* counter, uint32_t* out) {
  if (ptx::tid_x() != 0) return;
  *counter = initial;
  for (int i = 0; i < count; ++i) out[i] = ptx::atom_inc<kOrder>(counter, bounds[i]);
}

// Each thread copies 16 bytes, prefetched, after the kernel in front and before the next one.
inline __global__ void overlap_probe(const uint4* in, uint4* out) {
  ptx::prefetch_l2(in + ptx::tid_x());
  ptx::griddepcontrol_wait();
  out[ptx::tid_x()] = in[ptx::tid_x()];
  ptx::griddepcontrol_launch_dependents();
}

// Each thread copies 16 bytes.
inline __global__ void ld_global_probe(const float* in, float4* out) {
  out[ptx::tid_x()] = ptx::ld_global_cg_v4(in + 4 * ptx::tid_x());
}

}  // namespace padmarlin::probes
