// SPDX-License-Identifier: Apache-2.0
// Describes a matrix of 16-bit elements to the tensor copy engine: boxes of `box_rows` x 64,
// 128-byte swizzle, zeros outside. Returns null, or what went wrong.
#pragma once

#include <ptx/tma.cuh>

#if defined(__CUDACC__)

#include "cuda/wgmma/tensor_map.cuh"

namespace padmarlin::conformance {

inline const char* make_tensor_map(const uint16_t* base, int64_t columns, int64_t rows,
                                   int64_t pitch_bytes, int box_rows, ptx::TensorMap& map) {
  const cudaError_t error =
      wgmma::encode_tensor_map(base, columns, rows, pitch_bytes, box_rows, map);
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace padmarlin::conformance

#else

namespace padmarlin::conformance {

inline const char* make_tensor_map(const uint16_t* base, int64_t columns, int64_t rows,
                                   int64_t pitch_bytes, int box_rows, ptx::TensorMap& map) {
  map = {base, columns, rows, pitch_bytes, box_rows};
  return nullptr;
}

}  // namespace padmarlin::conformance

#endif
