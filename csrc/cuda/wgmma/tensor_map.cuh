// SPDX-License-Identifier: Apache-2.0
// Describes A to the tensor copy engine. Encoded anew for every launch: it costs the host less than
// the launch itself, and an address that another tensor had before needs no care.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <ptx/tma.cuh>

#include "core/layout.h"

namespace padmarlin::wgmma {

using TensorMapEncoder = decltype(&cuTensorMapEncodeTiled);

// The driver's encoder, found at run time: a library that links libcuda would not load without it.
// Null if the driver is older than CUDA 12.0.
inline TensorMapEncoder tensor_map_encoder() {
  static const TensorMapEncoder encoder = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found;
#if CUDART_VERSION >= 12050
    const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function,
                                                               12000, cudaEnableDefault, &found);
#else
    const cudaError_t error =
        cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &function, cudaEnableDefault, &found);
#endif
    const bool usable = error == cudaSuccess && found == cudaDriverEntryPointSuccess;
    return usable ? reinterpret_cast<TensorMapEncoder>(function) : nullptr;
  }();
  return encoder;
}

// A matrix (rows, columns) of 16-bit elements; loads bring boxes of `box_rows` x 64, 128-byte
// swizzle, zeros outside. `base` and `pitch_bytes` are multiples of 16.
inline cudaError_t encode_tensor_map(const void* base, int64_t columns, int64_t rows,
                                     int64_t pitch_bytes, int box_rows, ptx::TensorMap& map) {
  const TensorMapEncoder encode = tensor_map_encoder();
  if (encode == nullptr) return cudaErrorInsufficientDriver;
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)};
  const cuuint64_t pitches[1] = {static_cast<cuuint64_t>(pitch_bytes)};
  const cuuint32_t box[2] = {kTile, static_cast<cuuint32_t>(box_rows)}, steps[2] = {1, 1};
  // Elements are moved, not computed with: their type matters only where fills are NaN.
  const CUresult result =
      encode(&map, CU_TENSOR_MAP_DATA_TYPE_UINT16, 2, const_cast<void*>(base), sizes, pitches, box,
             steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace padmarlin::wgmma
