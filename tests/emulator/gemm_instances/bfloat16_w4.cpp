// SPDX-License-Identifier: Apache-2.0
// The gemm kernels for bfloat16 activations and 4-bit weights.
#include "gemm_emulated.h"

namespace padmarlin::emulator {

Statistics gemm_bfloat16_w4(const GemmArguments& args, const GemmChoice& choice,
                            const LaunchOptions& options) {
  return launch_for_dequant<Dtype::kBfloat16, 4>(args, choice, options);
}

}  // namespace padmarlin::emulator
