// SPDX-License-Identifier: Apache-2.0
// From the sums of a block's warps to the caller's (m, n): across the groups of the block, across
// the blocks that share the tile, from columns to rows; then bias, the one rounding, ragged edges,
// any row stride.
#pragma once

#include <ptx/barrier.cuh>
#include <ptx/half2.cuh>
#include <ptx/shared_memory.cuh>
#include <ptx/special_registers.cuh>

#include "core/stream_k.h"
#include "cuda/fixup.cuh"
#include "cuda/gemm.h"
#include "cuda/stage.cuh"

namespace padmarlin {

// Sums of one warp: [step i][word j]; registers 0, 1 are rows 2t and 2t + 1 of step i at column
// 16j + g, registers 2, 3 the same at column 16j + g + 8.
template <int kMSteps>
using Sums = float[kMSteps][4][4];

// Columns n, n + 1 (n even) of one row < m; columns >= args.n are padding and are not written.
template <Dtype kDtype>
PADMARLIN_DEVICE void store_pair(const GemmArguments& args, int row, int n, float low, float high) {
  if (n >= args.n) return;
  const bool has_high = n + 1 < args.n;
  if (args.bias != nullptr) {
    const uint16_t* bias = static_cast<const uint16_t*>(args.bias) + n;
    low += ptx::to_float<kDtype>(bias[0]);
    if (has_high) high += ptx::to_float<kDtype>(bias[1]);
  }
  const uint32_t pair = ptx::pack2<kDtype>(low, high);
  uint16_t* out = static_cast<uint16_t*>(args.out) + row * args.ldc + n;
  if (has_high && reinterpret_cast<uint64_t>(out) % 4 == 0) {
    *reinterpret_cast<uint32_t*>(out) = pair;
  } else {
    out[0] = static_cast<uint16_t>(pair);
    if (has_high) out[1] = static_cast<uint16_t>(pair >> 16);
  }
}

// One lane's part of the end of a segment.
template <Dtype kDtype, int kMSteps>
struct Epilogue {
  const GemmArguments& args;
  const GemmChoice& choice;
  const Segment segment;
  const TilePosition tile;
  int k_group, column_warp, lane;

  // `shared`: as core/mma_block.h has it behind the rings. For all threads of the block.
  PADMARLIN_DEVICE void run(Sums<kMSteps>& sums, uint8_t* shared) const {
    uint8_t* const rows = shared + group_sums_bytes(choice.shape);
    add_groups(sums, shared);
    if (!segment.whole()) {
      auto* const came_last = reinterpret_cast<int*>(rows + choice.shape.column_warps * kRowsBytes);
      const int threads = choice.shape.column_warps * kWarp;
      const auto sync = [] { ptx::bar_sync(); };
      const SplitWorkspace workspace{args.partials, args.counters};
      if (!add_partials(workspace, choice.partition, segment, threads, ptx::tid_x(), sums,
                        num_steps() * 4, came_last, sync)) {
        return;
      }
    }
    if (k_group == 0) store_rows(sums, rows + column_warp * kRowsBytes);
  }

 private:
  PADMARLIN_DEVICE int first_row() const { return tile.m * kMSteps * kStepRows; }

  // That hold a row of the output.
  PADMARLIN_DEVICE int num_steps() const {
    const int steps = div_up(args.m - first_row(), kStepRows);
    return steps < kMSteps ? steps : kMSteps;
  }

  // To group 0, in the order of the groups.
  PADMARLIN_DEVICE void add_groups(Sums<kMSteps>& sums, uint8_t* shared) const {
    if (choice.shape.k_groups == 1) return;
    const auto place = [&](int group, int j) {
      const int warp = (group - 1) * choice.shape.column_warps + column_warp;
      return shared + warp * kStepSumsBytes + (j * kWarp + lane) * 16;
    };
#pragma unroll
    for (int i = 0; i < kMSteps; ++i) {
      if (i >= num_steps()) continue;
      if (k_group > 0) {
#pragma unroll
        for (int j = 0; j < 4; ++j) ptx::st_shared_v4_f32(place(k_group, j), sums[i][j]);
      }
      // The groups' sums of this step are there.
      ptx::bar_sync();
      if (k_group == 0) {
#pragma unroll 1
        for (int group = 1; group < choice.shape.k_groups; ++group) {
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            float other[4];
            ptx::ld_shared_v4_f32(other, place(group, j));
#pragma unroll
            for (int r = 0; r < 4; ++r) sums[i][j][r] += other[r];
          }
        }
      }
      // They have been read; those of the next step may come.
      ptx::bar_sync();
    }
  }

  // Group 0 alone. Each warp turns its own columns into rows.
  PADMARLIN_DEVICE void store_rows(const Sums<kMSteps>& sums, uint8_t* shared) const {
    float* const rows = reinterpret_cast<float*>(shared);
    const int g = lane / 4, t = lane % 4;
    const int n = (tile.n * choice.shape.column_warps + column_warp) * kTile + 2 * lane;
#pragma unroll
    for (int i = 0; i < kMSteps; ++i) {
      if (i >= num_steps()) continue;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
#pragma unroll
        for (int r = 0; r < 4; ++r) {
          ptx::st_shared_f32(rows + (2 * t + r % 2) * kRowPitch + 16 * j + r / 2 * 8 + g,
                             sums[i][j][r]);
        }
      }
      // The warp's rows of this step are there.
      sync_group();
      const int row = first_row() + i * kStepRows;
#pragma unroll 1
      for (int r = 0; r < kStepRows && row + r < args.m; ++r) {
        const float2 pair = ptx::ld_shared_v2_f32(rows + r * kRowPitch + 2 * lane);
        store_pair<kDtype>(args, row + r, n, pair.x, pair.y);
      }
      // They have been read; those of the next step may come.
      sync_group();
    }
  }

  PADMARLIN_DEVICE void sync_group() const {
    ptx::bar_sync(1 + k_group, choice.shape.column_warps * kWarp);
  }
};

}  // namespace padmarlin
