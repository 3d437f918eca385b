// SPDX-License-Identifier: Apache-2.0
// align_activations.
#include <cuda_runtime.h>

#include "cuda/align_kernel.cuh"
#include "cuda/launch.h"

namespace padmarlin {

int align_activations(const GemmArguments& gemm, void* scratch, void* stream) {
  const AlignArguments args = {gemm.a, gemm.columns,       scratch, gemm.lda, gemm.m,
                               gemm.k, aligned_width(gemm)};
  const auto kernel = args.columns != nullptr ? align_kernel<true> : align_kernel<false>;
  return launch_plain(kernel, align_blocks(args.m, args.width), kAlignThreads, stream, args);
}

}  // namespace padmarlin
