// SPDX-License-Identifier: Apache-2.0
// launch_dequantize.
#include <cuda_runtime.h>

#include "cuda/dequantize_kernel.cuh"

namespace padmarlin {

int launch_dequantize(const DequantizeArguments& args, void* stream) {
  const DequantizeKernel kernel = dequantize_kernel_for(args);
  if (kernel == nullptr) return cudaErrorInvalidValue;
  const auto blocks = static_cast<unsigned>(dequantize_blocks(args.n, args.padded_k));
  kernel<<<blocks, kDequantizeThreads, kDequantizeSharedBytes, static_cast<cudaStream_t>(stream)>>>(
      args);
  return cudaGetLastError();
}

}  // namespace padmarlin
