// SPDX-License-Identifier: Apache-2.0
// The wgmma kernels for half activations and 4-bit weights.
#include "wgmma_emulated.h"

namespace padmarlin::emulator {

Statistics wgmma_half_w4(const GemmArguments& args, const GemmChoice& choice, const TensorMap& map,
                         const LaunchOptions& options) {
  return launch_wgmma_for_dequant<Dtype::kHalf, 4>(args, choice, map, options);
}

}  // namespace padmarlin::emulator
