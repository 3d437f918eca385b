// SPDX-License-Identifier: Apache-2.0
// From run-time arguments to the one instance of wgmma_kernel that serves them. Each .cu in
// instances/ compiles one (dtype, bits), for sm_90a alone.
#pragma once

#include "cuda/launch.h"
#include "cuda/wgmma/kernel.cuh"

namespace padmarlin::wgmma {

template <Dtype kDtype, int kBits, Dequant kDequant, bool kAsymmetric, int kRows>
cudaError_t launch_instance(const GemmArguments& args, const GemmChoice& choice,
                            const ptx::TensorMap& map, cudaStream_t stream) {
  constexpr int kShared = shared_layout(kRows, kBits, kAsymmetric).bytes;
  return padmarlin::launch<wgmma_kernel<kDtype, kBits, kDequant, kAsymmetric, kRows>>(
      {.blocks = choice.partition.blocks,
       .threads = kThreads,
       .shared_bytes = kShared,
       .overlaps_previous = args.overlaps_previous},
      stream, args, choice, map);
}

template <Dtype kDtype, int kBits, Dequant kDequant, bool kAsymmetric>
cudaError_t launch_for_rows(const GemmArguments& args, const GemmChoice& choice,
                            const ptx::TensorMap& map, cudaStream_t stream) {
  cudaError_t error = cudaErrorInvalidValue;
  with_block_rows(choice.tile_m, [&]<int kRows>() {
    error = launch_instance<kDtype, kBits, kDequant, kAsymmetric, kRows>(args, choice, map, stream);
  });
  return error;
}

// Every kind of dequantization that exists for (kDtype, kBits).
template <Dtype kDtype, int kBits>
cudaError_t launch_for_dequant(const GemmArguments& args, const GemmChoice& choice,
                               const ptx::TensorMap& map, cudaStream_t stream) {
  const auto with = [&]<Dequant kDequant>() {
    return args.zeros != nullptr
               ? launch_for_rows<kDtype, kBits, kDequant, true>(args, choice, map, stream)
               : launch_for_rows<kDtype, kBits, kDequant, false>(args, choice, map, stream);
  };
  if constexpr (kBits == 4) {
    if (args.dequant == Dequant::kTwoField) {
      return with.template operator()<Dequant::kTwoField>();
    }
  }
  if (args.dequant == Dequant::kOneField) {
    return with.template operator()<Dequant::kOneField>();
  }
  if (args.dequant == Dequant::kWide && args.zeros != nullptr) {
    return launch_for_rows<kDtype, kBits, Dequant::kWide, true>(args, choice, map, stream);
  }
  return cudaErrorInvalidValue;
}

// Defined by the files in instances/.
cudaError_t launch_half_w4(const GemmArguments&, const GemmChoice&, const ptx::TensorMap&,
                           cudaStream_t);
cudaError_t launch_half_w8(const GemmArguments&, const GemmChoice&, const ptx::TensorMap&,
                           cudaStream_t);
cudaError_t launch_bfloat16_w4(const GemmArguments&, const GemmChoice&, const ptx::TensorMap&,
                               cudaStream_t);
cudaError_t launch_bfloat16_w8(const GemmArguments&, const GemmChoice&, const ptx::TensorMap&,
                               cudaStream_t);

}  // namespace padmarlin::wgmma
