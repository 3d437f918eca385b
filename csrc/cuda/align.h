// SPDX-License-Identifier: Apache-2.0
// The pass before kernels that read A by TMA, where A is not as TMA needs it: in order, its base
// and row stride multiples of 16 bytes. No torch: raw pointers in, cudaError_t out (as int).
#pragma once

#include <cstdint>

#include "core/layout.h"
#include "core/stream_k.h"
#include "cuda/gemm.h"

namespace padmarlin {

struct AlignArguments {
  const void* a;           // (m, k), row stride lda
  const int32_t* columns;  // (width): column of `a` that each column of `out` has, -1 none; or null
  void* out;               // (m, width), contiguous, 16-byte aligned
  int64_t lda;
  int m, k, width;  // width: a multiple of 8
};

constexpr int64_t kTmaElements = 8;  // 16 bytes

// The widest copy, up to 16 bytes, that the address and the row stride of 16-bit elements allow. Of
// rows that overlap (one that is expanded, windows over a sequence) only an element: what the copy
// engine makes of a row stride below a row's length is not documented.
inline int copy_bytes(const void* a, int64_t lda, int64_t m, int64_t k) {
  if (m > 1 && lda < k) return 2;
  const uint64_t all = reinterpret_cast<uintptr_t>(a) | static_cast<uint64_t>(lda) * 2 | 16;
  return static_cast<int>(all & (~all + 1));
}

// Columns of the aligned A: the padded ones if a table names them, else A's own.
constexpr int aligned_width(const GemmArguments& gemm) {
  return gemm.columns != nullptr ? gemm.padded_k : static_cast<int>(round_up(gemm.k, kTmaElements));
}

constexpr int64_t aligned_bytes(const GemmArguments& gemm) {
  return 2 * static_cast<int64_t>(gemm.m) * aligned_width(gemm);
}

// The same problem on the aligned A that align_activations writes to `scratch`.
constexpr GemmArguments with_aligned(GemmArguments gemm, const void* scratch) {
  gemm.a = scratch;
  gemm.lda = aligned_width(gemm);
  if (gemm.columns != nullptr) gemm.k = gemm.padded_k;
  gemm.columns = nullptr;
  return gemm;
}

// Writes aligned_bytes(gemm) to `scratch`, 16-byte aligned. `stream` is a cudaStream_t.
int align_activations(const GemmArguments& gemm, void* scratch, void* stream);

}  // namespace padmarlin
