// SPDX-License-Identifier: Apache-2.0
// launch_gemm: picks the family, and the translation unit that holds (dtype, bits).
#include "cuda/gemm.h"
#include "cuda/gemm_launch.cuh"
#include "cuda/wgmma/launch.h"

namespace padmarlin {

int launch_gemm(const GemmArguments& args, const GemmChoice& choice, void* stream) {
  if (choice.family == Family::kWgmma) return wgmma::launch(args, choice, stream);
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  const bool half = args.dtype == Dtype::kHalf;
  switch (args.bits) {
    case 4:
      return half ? launch_gemm_half_w4(args, choice, cuda_stream)
                  : launch_gemm_bfloat16_w4(args, choice, cuda_stream);
    case 8:
      return half ? launch_gemm_half_w8(args, choice, cuda_stream)
                  : launch_gemm_bfloat16_w8(args, choice, cuda_stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace padmarlin
