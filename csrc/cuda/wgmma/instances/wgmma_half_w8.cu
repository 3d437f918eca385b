// SPDX-License-Identifier: Apache-2.0
#include "cuda/wgmma/instances.cuh"

namespace padmarlin::wgmma {

cudaError_t launch_half_w8(const Arguments& args, const ptx::TensorMap& map, int rows,
                           cudaStream_t stream) {
  return launch_for_dequant<Dtype::kHalf, 8>(args, map, rows, stream);
}

}  // namespace padmarlin::wgmma
