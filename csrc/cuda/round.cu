// SPDX-License-Identifier: Apache-2.0
// launch_round.
#include <cuda_runtime.h>

#include "cuda/launch.h"
#include "cuda/round_kernel.cuh"

namespace padmarlin {

int launch_round(const RoundArguments& args, void* stream) {
  return launch_plain(round_kernel_for(args.dtype), round_blocks(args.m, args.n), kRoundThreads,
                      stream, args);
}

}  // namespace padmarlin
