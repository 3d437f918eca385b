// SPDX-License-Identifier: Apache-2.0
// The entry point of the rounding kernels: fp32 products + bias -> 16 bits, rounded once, into the
// caller's output. No torch: raw pointers in, cudaError_t out (as int).
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace padmarlin {

struct RoundArguments {
  const float* products;  // (m, n rounded up to 2), row stride ldp; 8-byte aligned, ldp even
  const void* bias;       // (n) of `dtype`, or null
  void* out;              // (m, n) of `dtype`, row stride ldo
  int64_t ldp, ldo;       // in elements
  int m, n;
  Dtype dtype;
};

// `stream` is a cudaStream_t. Returns a cudaError_t.
int launch_round(const RoundArguments& arguments, void* stream);

}  // namespace padmarlin
