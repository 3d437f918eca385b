// SPDX-License-Identifier: Apache-2.0
// launch_repack.
#include <cuda_runtime.h>

#include "cuda/launch.h"
#include "cuda/repack.h"
#include "cuda/repack_kernel.cuh"

namespace padmarlin {

int launch_repack(const RepackArguments& args, void* stream) {
  const RepackKernel kernel = repack_kernel_for(args.packing, args.bits);
  if (kernel == nullptr) return cudaErrorInvalidValue;
  return launch_plain(kernel, repack_blocks(args.padded_n, args.padded_k), kRepackThreads, stream,
                      args);
}

}  // namespace padmarlin
