// SPDX-License-Identifier: Apache-2.0
// Describes a matrix of 16-bit elements to the tensor copy engine: boxes of `box_rows` x 64,
// 128-byte swizzle, zeros outside. Returns null, or what went wrong.
#pragma once

#include <ptx/tma.cuh>

#if defined(__CUDACC__)

namespace padmarlin::conformance {

// The driver's encoder, found at run time: a library that links libcuda would not load without it.
inline const char* make_tensor_map(const uint16_t* base, int64_t columns, int64_t rows,
                                   int64_t pitch_bytes, int box_rows, ptx::TensorMap& map) {
  void* encoder = nullptr;
  cudaDriverEntryPointQueryResult found;
  const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &encoder,
                                                             12000, cudaEnableDefault, &found);
  if (error != cudaSuccess || found != cudaDriverEntryPointSuccess) {
    return "the driver has no cuTensorMapEncodeTiled";
  }
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)};
  const cuuint64_t pitches[1] = {static_cast<cuuint64_t>(pitch_bytes)};
  const cuuint32_t box[2] = {64, static_cast<cuuint32_t>(box_rows)}, steps[2] = {1, 1};
  const CUresult result = reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(encoder)(
      &map, CU_TENSOR_MAP_DATA_TYPE_UINT16, 2, const_cast<uint16_t*>(base), sizes, pitches, box,
      steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
      CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? nullptr : "cuTensorMapEncodeTiled refused the tensor";
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
