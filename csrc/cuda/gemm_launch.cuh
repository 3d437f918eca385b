// SPDX-License-Identifier: Apache-2.0
// Host side of the gemm kernels: from run-time arguments to the one template instance that serves
// them. Each .cu in instances/ compiles one (dtype, bits).
#pragma once

#include <cuda_runtime.h>

#include "cuda/gemm_kernel.cuh"
#include "cuda/launch.h"

namespace padmarlin {

template <Dtype kDtype, int kBits, Dequant kDequant, bool kAsymmetric, int kMSteps>
cudaError_t launch_instance(const GemmArguments& args, const GemmChoice& choice,
                            cudaStream_t stream) {
  constexpr auto kKernel = gemm_kernel<kDtype, kBits, kDequant, kAsymmetric, kMSteps>;
  const LaunchConfig config{choice.partition.blocks, choice.threads, choice.shared_bytes,
                            args.overlaps_previous};
  return launch<kKernel>(config, stream, args, choice);
}

template <Dtype kDtype, int kBits, Dequant kDequant, bool kAsymmetric>
cudaError_t launch_for_m(const GemmArguments& args, const GemmChoice& choice, cudaStream_t stream) {
  switch (choice.shape.m_steps) {
    case 1:
      return launch_instance<kDtype, kBits, kDequant, kAsymmetric, 1>(args, choice, stream);
    case 2:
      return launch_instance<kDtype, kBits, kDequant, kAsymmetric, 2>(args, choice, stream);
    case 4:
      return launch_instance<kDtype, kBits, kDequant, kAsymmetric, 4>(args, choice, stream);
    case 8:
      return launch_instance<kDtype, kBits, kDequant, kAsymmetric, 8>(args, choice, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

// Every kind of dequantization that exists for (kDtype, kBits).
template <Dtype kDtype, int kBits>
cudaError_t launch_for_dequant(const GemmArguments& args, const GemmChoice& choice,
                               cudaStream_t stream) {
  const bool asymmetric = args.zeros != nullptr;
  if constexpr (kBits == 4) {
    if (args.dequant == Dequant::kTwoField) {
      return asymmetric
                 ? launch_for_m<kDtype, kBits, Dequant::kTwoField, true>(args, choice, stream)
                 : launch_for_m<kDtype, kBits, Dequant::kTwoField, false>(args, choice, stream);
    }
  }
  if (args.dequant == Dequant::kOneField) {
    return asymmetric
               ? launch_for_m<kDtype, kBits, Dequant::kOneField, true>(args, choice, stream)
               : launch_for_m<kDtype, kBits, Dequant::kOneField, false>(args, choice, stream);
  }
  if (args.dequant == Dequant::kWide && asymmetric) {
    return launch_for_m<kDtype, kBits, Dequant::kWide, true>(args, choice, stream);
  }
  return cudaErrorInvalidValue;
}

// Defined by the files in instances/.
cudaError_t launch_gemm_half_w4(const GemmArguments&, const GemmChoice&, cudaStream_t);
cudaError_t launch_gemm_half_w8(const GemmArguments&, const GemmChoice&, cudaStream_t);
cudaError_t launch_gemm_bfloat16_w4(const GemmArguments&, const GemmChoice&, cudaStream_t);
cudaError_t launch_gemm_bfloat16_w8(const GemmArguments&, const GemmChoice&, cudaStream_t);

}  // namespace padmarlin
