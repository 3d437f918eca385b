// SPDX-License-Identifier: Apache-2.0
// align_activations.
#include <cuda_runtime.h>

#include "cuda/align_kernel.cuh"

namespace padmarlin {

int align_activations(const GemmArguments& gemm, void* scratch, void* stream) {
  const AlignArguments args = {gemm.a, gemm.columns,       scratch, gemm.lda, gemm.m,
                               gemm.k, aligned_width(gemm)};
  const auto blocks = static_cast<unsigned>(align_blocks(args.m, args.width));
  const auto kernel = args.columns != nullptr ? align_kernel<true> : align_kernel<false>;
  kernel<<<blocks, kAlignThreads, 0, static_cast<cudaStream_t>(stream)>>>(args);
  return cudaGetLastError();
}

}  // namespace padmarlin
