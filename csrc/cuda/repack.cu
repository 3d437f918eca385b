// SPDX-License-Identifier: Apache-2.0
// launch_repack.
#include <cuda_runtime.h>

#include "cuda/repack.h"
#include "cuda/repack_kernel.cuh"

namespace padmarlin {

int launch_repack(const RepackArguments& args, void* stream) {
  const RepackKernel kernel = repack_kernel_for(args.packing, args.bits);
  if (kernel == nullptr) return cudaErrorInvalidValue;
  const auto blocks = static_cast<unsigned>(repack_blocks(args.padded_n, args.padded_k));
  kernel<<<blocks, kRepackThreads, 0, static_cast<cudaStream_t>(stream)>>>(args);
  return cudaGetLastError();
}

}  // namespace padmarlin
