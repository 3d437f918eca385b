// SPDX-License-Identifier: Apache-2.0
// From fp32 sums to the caller's (m, n): bias, the one rounding, ragged edges, any row stride.
#pragma once

#include <ptx/half2.cuh>

#include "cuda/gemm.h"

namespace padmarlin {

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

// Where split `split` keeps its sums of one row: partials is (splits, m, padded_n).
PADMARLIN_DEVICE float* partial_row(const GemmArguments& args, int split, int row) {
  return args.partials + (static_cast<size_t>(split) * args.m + row) * args.padded_n;
}

}  // namespace padmarlin
