// SPDX-License-Identifier: Apache-2.0
#include "cuda/wgmma/instances.cuh"

namespace padmarlin::wgmma {

cudaError_t launch_bfloat16_w4(const GemmArguments& args, const GemmChoice& choice,
                               const ptx::TensorMap& map, cudaStream_t stream) {
  return launch_for_dequant<Dtype::kBfloat16, 4>(args, choice, map, stream);
}

}  // namespace padmarlin::wgmma
