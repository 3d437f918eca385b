// SPDX-License-Identifier: Apache-2.0
// The scratch family (core/scratch.h): dequantize, torch's matmul, round, chunk by chunk.
#pragma once

#include <optional>

#include "core/gemm_cost.h"
#include "torch/packed_weight.h"

namespace padmarlin {

struct ScratchCall {
  const Tensor& a;  // (m, k), any row stride, in two dimensions
  const PackedWeight& weight;
  const std::optional<Tensor>& bias;
  Tensor& out;  // (m, n)
  int64_t ldo;  // its row stride
};

// Computes all of `out` with the chunks of `choice`, on torch's current stream, which `stream` is.
// False: torch refused the matmul, and what `out` holds is undefined.
bool multiply_by_scratch(const ScratchCall& call, const GemmChoice& choice, void* stream);

}  // namespace padmarlin
