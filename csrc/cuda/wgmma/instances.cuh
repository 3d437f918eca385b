// SPDX-License-Identifier: Apache-2.0
// From run-time arguments to the one instance of wgmma_kernel that serves them. Each .cu in
// instances/ compiles one (dtype, bits), for sm_90a alone.
#pragma once

#include "cuda/launch.h"
#include "cuda/wgmma/kernel.cuh"

namespace padmarlin::wgmma {

template <Dtype kDtype, int kBits, Dequant kDequant, bool kAsymmetric, int kRows>
cudaError_t launch_instance(const Arguments& args, const ptx::TensorMap& map, cudaStream_t stream) {
  constexpr int kShared = shared_layout(kRows, kBits, kAsymmetric).bytes;
  return padmarlin::launch<wgmma_kernel<kDtype, kBits, kDequant, kAsymmetric, kRows>>(
      {.blocks = args.partition.blocks,
       .threads = kThreads,
       .shared_bytes = kShared,
       .overlaps_previous = false},
      stream, args, map);
}

template <Dtype kDtype, int kBits, Dequant kDequant, bool kAsymmetric>
cudaError_t launch_for_rows(const Arguments& args, const ptx::TensorMap& map, int rows,
                            cudaStream_t stream) {
  switch (rows) {
    case 64:
      return launch_instance<kDtype, kBits, kDequant, kAsymmetric, 64>(args, map, stream);
    case 128:
      return launch_instance<kDtype, kBits, kDequant, kAsymmetric, 128>(args, map, stream);
    case 160:
      return launch_instance<kDtype, kBits, kDequant, kAsymmetric, 160>(args, map, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

// Every kind of dequantization that exists for (kDtype, kBits).
template <Dtype kDtype, int kBits>
cudaError_t launch_for_dequant(const Arguments& args, const ptx::TensorMap& map, int rows,
                               cudaStream_t stream) {
  const auto with = [&]<Dequant kDequant>() {
    return args.gemm.zeros != nullptr
               ? launch_for_rows<kDtype, kBits, kDequant, true>(args, map, rows, stream)
               : launch_for_rows<kDtype, kBits, kDequant, false>(args, map, rows, stream);
  };
  if constexpr (kBits == 4) {
    if (args.gemm.dequant == Dequant::kTwoField) {
      return with.template operator()<Dequant::kTwoField>();
    }
  }
  if (args.gemm.dequant == Dequant::kOneField) {
    return with.template operator()<Dequant::kOneField>();
  }
  if (args.gemm.dequant == Dequant::kWide && args.gemm.zeros != nullptr) {
    return launch_for_rows<kDtype, kBits, Dequant::kWide, true>(args, map, rows, stream);
  }
  return cudaErrorInvalidValue;
}

// Defined by the files in instances/.
cudaError_t launch_half_w4(const Arguments&, const ptx::TensorMap&, int rows, cudaStream_t);
cudaError_t launch_half_w8(const Arguments&, const ptx::TensorMap&, int rows, cudaStream_t);
cudaError_t launch_bfloat16_w4(const Arguments&, const ptx::TensorMap&, int rows, cudaStream_t);
cudaError_t launch_bfloat16_w8(const Arguments&, const ptx::TensorMap&, int rows, cudaStream_t);

}  // namespace padmarlin::wgmma
