// SPDX-License-Identifier: Apache-2.0
// launch: a tensor map of A, and the translation unit that holds (dtype, bits).
#include "cuda/wgmma/launch.h"
#include "cuda/wgmma/tensor_map.cuh"

namespace padmarlin::wgmma {

// Here and not from instances.cuh: this file is compiled for every architecture, the kernels are
// not.
cudaError_t launch_half_w4(const GemmArguments&, const GemmChoice&, const ptx::TensorMap&,
                           cudaStream_t);
cudaError_t launch_half_w8(const GemmArguments&, const GemmChoice&, const ptx::TensorMap&,
                           cudaStream_t);
cudaError_t launch_bfloat16_w4(const GemmArguments&, const GemmChoice&, const ptx::TensorMap&,
                               cudaStream_t);
cudaError_t launch_bfloat16_w8(const GemmArguments&, const GemmChoice&, const ptx::TensorMap&,
                               cudaStream_t);

#if defined(PADMARLIN_WGMMA)

bool is_built() { return true; }

int launch(const GemmArguments& args, const GemmChoice& choice, void* stream) {
  // A single row has no next one; the map wants a pitch all the same.
  const int64_t pitch = args.m > 1 ? args.lda : round_up(args.k, 8);
  ptx::TensorMap map;
  const cudaError_t error =
      encode_tensor_map(args.a, args.k, args.m, pitch * 2, choice.tile_m, map);
  if (error != cudaSuccess) return error;
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  const bool half = args.dtype == Dtype::kHalf;
  if (args.bits == 4) {
    return half ? launch_half_w4(args, choice, map, cuda_stream)
                : launch_bfloat16_w4(args, choice, map, cuda_stream);
  }
  return half ? launch_half_w8(args, choice, map, cuda_stream)
              : launch_bfloat16_w8(args, choice, map, cuda_stream);
}

#else

bool is_built() { return false; }

int launch(const GemmArguments&, const GemmChoice&, void*) {
  return cudaErrorNoKernelImageForDevice;
}

#endif

}  // namespace padmarlin::wgmma
