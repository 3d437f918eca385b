// SPDX-License-Identifier: Apache-2.0
// fp32 products + bias -> 16 bits, rounded once. A lane has two adjacent columns of each row: a
// warp then reads 256 adjacent bytes and writes 128, whatever the output's row stride, as pairs
// where that is even and its address a multiple of 4, else element by element.
#pragma once

#include <ptx/half2.cuh>
#include <ptx/special_registers.cuh>

#include "core/layout.h"
#include "cuda/round.h"

namespace padmarlin {

constexpr int kRoundColumns = 2 * kWarp;  // of a warp, and of a block
constexpr int kRoundWarps = 8;
constexpr int kRoundRows = 8;  // of a warp, all in flight: 64 bytes a lane, 80 KB an SM
constexpr int kRoundThreads = kRoundWarps * kWarp;
constexpr int kRoundBlockRows = kRoundWarps * kRoundRows;

constexpr int round_column_blocks(int n) { return div_up(n, kRoundColumns); }
constexpr int64_t round_blocks(int m, int n) {
  return static_cast<int64_t>(div_up(m, kRoundBlockRows)) * round_column_blocks(n);
}

// Grid (round_blocks), kRoundThreads threads.
template <Dtype kDtype>
__global__ void __launch_bounds__(kRoundThreads) round_kernel(RoundArguments args) {
  const int column_blocks = round_column_blocks(args.n);
  const int lane = ptx::tid_x() % kWarp, warp = ptx::tid_x() / kWarp;
  const int n = ptx::ctaid_x() % column_blocks * kRoundColumns + 2 * lane;
  const int first_row = ptx::ctaid_x() / column_blocks * kRoundBlockRows + warp * kRoundRows;
  if (n >= args.n) return;
  const bool has_high = n + 1 < args.n;
  float2 bias = {-0.0f, -0.0f};  // what leaves every number as it is
  if (args.bias != nullptr) {
    const uint16_t* const of_columns = static_cast<const uint16_t*>(args.bias) + n;
    bias.x = ptx::to_float<kDtype>(of_columns[0]);
    if (has_high) bias.y = ptx::to_float<kDtype>(of_columns[1]);
  }
  float2 products[kRoundRows];
#pragma unroll
  for (int i = 0; i < kRoundRows; ++i) {
    if (first_row + i >= args.m) continue;
    products[i] = *reinterpret_cast<const float2*>(args.products + (first_row + i) * args.ldp + n);
  }
#pragma unroll
  for (int i = 0; i < kRoundRows; ++i) {
    if (first_row + i >= args.m) continue;
    const uint32_t pair = ptx::pack2<kDtype>(products[i].x + bias.x, products[i].y + bias.y);
    uint16_t* const out = static_cast<uint16_t*>(args.out) + (first_row + i) * args.ldo + n;
    if (has_high && reinterpret_cast<uint64_t>(out) % 4 == 0) {
      *reinterpret_cast<uint32_t*>(out) = pair;
    } else {
      out[0] = static_cast<uint16_t>(pair);
      if (has_high) out[1] = static_cast<uint16_t>(pair >> 16);
    }
  }
}

using RoundKernel = void (*)(RoundArguments);

inline RoundKernel round_kernel_for(Dtype dtype) {
  return dtype == Dtype::kHalf ? round_kernel<Dtype::kHalf> : round_kernel<Dtype::kBfloat16>;
}

}  // namespace padmarlin
