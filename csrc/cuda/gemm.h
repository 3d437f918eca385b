// SPDX-License-Identifier: Apache-2.0
// The one entry point of the gemm kernels: out = a @ dequantize(weight) + bias.
// No torch, no CUDA types beyond the stream: raw pointers in, cudaError_t out (as int).
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "core/gemm_cost.h"
#include "core/layout.h"

namespace padmarlin {

struct GemmArguments {
  const void* a;              // (m, k) elements of `dtype`, row stride lda
  const uint32_t* qweight;    // (padded_n / 64, padded_k / 64, tile_words(bits))
  const void* scales;         // (scale_rows, padded_n), permuted, times 2^e
  const uint16_t* zeros;      // (scale_rows, padded_n), permuted, or null: symmetric
  const int32_t* slice_rows;  // (padded_k / 16): scale row of each k-slice
  const int32_t* columns;     // (padded_k): column of `a` that each row reads, -1 none; or null
  const void* bias;           // (n), or null
  void* out;                  // (m, n), row stride ldc
  float* partials;            // partials_bytes(choice) of any content
  uint32_t* counters;         // num_counters(partition) zeros; a launch leaves zeros
  int64_t lda, ldc;           // in elements; lda 0 if m is 1
  int m, n, k, padded_n, padded_k, scale_rows;
  int front_pad;  // rows of zeros before a's column 0 (0 with `columns`)
  int bits;
  Dtype dtype;
  Dequant dequant;
  bool overlaps_previous = false;  // launched as cuda/launch.h says
};

// The caller guarantees what the comments above say; csrc/torch checks it. `stream` is a
// cudaStream_t. Returns a cudaError_t.
int launch_gemm(const GemmArguments& arguments, const GemmChoice& choice, void* stream);

}  // namespace padmarlin
