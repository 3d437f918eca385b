// SPDX-License-Identifier: Apache-2.0
// launch_repack_gptq.
#include <cuda_runtime.h>

#include "cuda/repack.h"
#include "cuda/repack_kernel.cuh"

namespace padmarlin {

int launch_repack_gptq(const RepackArguments& args, void* stream) {
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  const auto blocks = static_cast<unsigned>(repack_blocks(args.padded_n, args.padded_k));
  switch (args.bits) {
    case 4:
      repack_gptq_kernel<4><<<blocks, kRepackThreads, 0, cuda_stream>>>(args);
      break;
    case 8:
      repack_gptq_kernel<8><<<blocks, kRepackThreads, 0, cuda_stream>>>(args);
      break;
    default:
      return cudaErrorInvalidValue;
  }
  return cudaGetLastError();
}

}  // namespace padmarlin
