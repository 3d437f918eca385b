// SPDX-License-Identifier: Apache-2.0
// The wgmma kernels for bfloat16 activations and 4-bit weights.
#include "wgmma_emulated.h"

namespace padmarlin::emulator {

Statistics wgmma_bfloat16_w4(const GemmArguments& args, const GemmChoice& choice,
                             const TensorMap& map, const LaunchOptions& options) {
  return launch_wgmma_for_dequant<Dtype::kBfloat16, 4>(args, choice, map, options);
}

}  // namespace padmarlin::emulator
