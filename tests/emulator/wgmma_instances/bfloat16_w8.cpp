// SPDX-License-Identifier: Apache-2.0
// The wgmma kernels for bfloat16 activations and 8-bit weights.
#include "wgmma_emulated.h"

namespace padmarlin::emulator {

Statistics wgmma_bfloat16_w8(const GemmArguments& args, const GemmChoice& choice,
                             const TensorMap& map, const LaunchOptions& options) {
  return launch_wgmma_for_dequant<Dtype::kBfloat16, 8>(args, choice, map, options);
}

}  // namespace padmarlin::emulator
