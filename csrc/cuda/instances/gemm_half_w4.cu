// SPDX-License-Identifier: Apache-2.0
#include "cuda/gemm_launch.cuh"

namespace padmarlin {

cudaError_t launch_gemm_half_w4(const GemmArguments& args, const GemmChoice& choice,
                                cudaStream_t stream) {
  return launch_for_dequant<Dtype::kHalf, 4>(args, choice, stream);
}

}  // namespace padmarlin
