// SPDX-License-Identifier: Apache-2.0
// The gemm kernels for bfloat16 activations and 8-bit weights.
#include "gemm_emulated.h"

namespace padmarlin::emulator {

Statistics gemm_bfloat16_w8(const GemmArguments& args, const GemmChoice& choice,
                            const LaunchOptions& options) {
  return launch_for_dequant<Dtype::kBfloat16, 8>(args, choice, options);
}

}  // namespace padmarlin::emulator
