// SPDX-License-Identifier: Apache-2.0
// From a consumer's sums, which lie by columns of the weight, to rows of the caller's output: bias,
// the one rounding, a turn through shared memory, whatever n, alignment and row stride are.
#pragma once

#include <ptx/barrier.cuh>
#include <ptx/half2.cuh>
#include <ptx/shared_memory.cuh>

#include "cuda/gemm.h"
#include "cuda/wgmma/consumer.cuh"

namespace padmarlin::wgmma {

// Barriers 1, 2: a consumer's own; 3: both consumers. 0 is the block's.
constexpr int kTurnBarrier = 1, kConsumersBarrier = 3;

// Eight columns from n on; columns >= args.n are padding and are not written.
PADMARLIN_DEVICE void store_columns(const GemmArguments& args, int row, int n,
                                    const uint4& values) {
  const int left = args.n - n;
  if (left <= 0) return;
  uint16_t* const out = static_cast<uint16_t*>(args.out) + row * args.ldc + n;
  const uint32_t pairs[4] = {values.x, values.y, values.z, values.w};
  const auto address = reinterpret_cast<uint64_t>(out);
  if (left >= 8 && address % 16 == 0) {
    *reinterpret_cast<uint4*>(out) = values;
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (left >= 2 * i + 2 && address % 4 == 0) {
      *reinterpret_cast<uint32_t*>(out + 2 * i) = pairs[i];
    } else {
      if (left > 2 * i) out[2 * i] = static_cast<uint16_t>(pairs[i]);
      if (left > 2 * i + 1) out[2 * i + 1] = static_cast<uint16_t>(pairs[i] >> 16);
    }
  }
}

// n0: the consumer's first column; m0: the block's first row.
template <Dtype kDtype, int kRows>
PADMARLIN_DEVICE void store_sums(const GemmArguments& args, const Lane& lane, uint8_t* turn, int m0,
                                 int n0, const float (&acc)[2][kRows / 2]) {
  float bias[2][2] = {};
  if (args.bias != nullptr) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int n = n0 + lane.warp / 2 * kTile + lane.column(i / 2, i % 2);
      if (n >= args.n) continue;
      bias[i / 2][i % 2] = ptx::to_float<kDtype>(static_cast<const uint16_t*>(args.bias)[n]);
    }
  }
  // In the turning place a row has [warp % 2][tile][j][row half][g]: stmatrix writes g = 0..7, 16
  // bytes, at a time. Word q of them (g = 2q, 2q + 1) belongs to half (warp ^ q) & 1 of the tile.
  uint8_t* const written = turn + (lane.lane / 16 * 8 + lane.lane % 8) * kTurnPitch +
                           (lane.warp % 2 * kTile + lane.warp / 2 * 32 + lane.lane / 8 % 2 * 8) * 2;
  const int thread = lane.warp * kWarp + lane.lane;
  const int row = thread / 8, piece = thread % 8;  // piece: [tile][j][row half]
  const uint8_t* const read = turn + row * kTurnPitch + piece * 16;
  const int column = n0 + piece / 4 * kTile + piece % 4 * 8;

#pragma unroll
  for (int first = 0; first < kRows; first += kTurnRows) {
    if (m0 + first >= args.m) break;
    ptx::bar_sync(kTurnBarrier + lane.consumer, kWarpgroup);  // the place has been read
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      // Of rows 8i + 2t, + 1 (i = 0, 1): a pair for column g, and one for g + 8.
      uint32_t pairs[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float* const sums = &acc[j][first / 2 + 2 * i];
        pairs[i] = ptx::pack2<kDtype>(sums[0] + bias[j][i % 2], sums[1] + bias[j][i % 2]);
      }
      ptx::stmatrix_x4_trans(written + j * 32, pairs);
    }
    ptx::bar_sync(kTurnBarrier + lane.consumer, kWarpgroup);
    if (m0 + first + row >= args.m) continue;
    const uint4 even = ptx::ld_shared_v4(read), odd = ptx::ld_shared_v4(read + kTile * 2);
    store_columns(args, m0 + first + row, column, uint4{even.x, odd.y, even.z, odd.w});
    store_columns(args, m0 + first + row, column + 32, uint4{odd.x, even.y, odd.z, even.w});
  }
}

}  // namespace padmarlin::wgmma
