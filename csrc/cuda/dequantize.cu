// SPDX-License-Identifier: Apache-2.0
// launch_dequantize.
#include <cuda_runtime.h>

#include "cuda/dequantize_kernel.cuh"
#include "cuda/launch.h"

namespace padmarlin {

int launch_dequantize(const DequantizeArguments& args, void* stream) {
  const DequantizeKernel kernel = dequantize_kernel_for(args);
  if (kernel == nullptr) return cudaErrorInvalidValue;
  return launch_plain(kernel, dequantize_blocks(args.n, args.padded_k), kDequantizeThreads, stream,
                      args, kDequantizeSharedBytes);
}

}  // namespace padmarlin
