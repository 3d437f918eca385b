// SPDX-License-Identifier: Apache-2.0
// launch: a tensor map of A, and the translation unit that holds (dtype, bits).
#include "cuda/wgmma/launch.h"
#include "cuda/wgmma/tensor_map.cuh"

namespace padmarlin::wgmma {

// Here and not from instances.cuh: this file is compiled for every architecture, the kernels are
// not.
cudaError_t launch_half_w4(const Arguments&, const ptx::TensorMap&, int rows, cudaStream_t);
cudaError_t launch_half_w8(const Arguments&, const ptx::TensorMap&, int rows, cudaStream_t);
cudaError_t launch_bfloat16_w4(const Arguments&, const ptx::TensorMap&, int rows, cudaStream_t);
cudaError_t launch_bfloat16_w8(const Arguments&, const ptx::TensorMap&, int rows, cudaStream_t);

#if defined(PADMARLIN_WGMMA)

bool is_built() { return true; }

int launch(const GemmArguments& gemm, const Plan& plan, const SplitWorkspace& workspace,
           void* stream) {
  // A single row has no next one; the map wants a pitch all the same.
  const int64_t pitch = gemm.m > 1 ? gemm.lda : round_up(gemm.k, 8);
  ptx::TensorMap map;
  const cudaError_t error = encode_tensor_map(gemm.a, gemm.k, gemm.m, pitch * 2, plan.rows, map);
  if (error != cudaSuccess) return error;
  const Arguments args = {gemm, plan.partition, workspace, plan.m_tiles, plan.n_tiles, plan.band};
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  const bool half = gemm.dtype == Dtype::kHalf;
  if (gemm.bits == 4) {
    return half ? launch_half_w4(args, map, plan.rows, cuda_stream)
                : launch_bfloat16_w4(args, map, plan.rows, cuda_stream);
  }
  return half ? launch_half_w8(args, map, plan.rows, cuda_stream)
              : launch_bfloat16_w8(args, map, plan.rows, cuda_stream);
}

#else

bool is_built() { return false; }

int launch(const GemmArguments&, const Plan&, const SplitWorkspace&, void*) {
  return cudaErrorNoKernelImageForDevice;
}

#endif

}  // namespace padmarlin::wgmma
