// SPDX-License-Identifier: Apache-2.0
// The kernels that operators.cpp launches, on the emulator.
#include "cuda/dequantize_kernel.cuh"
#include "cuda/round_kernel.cuh"
#include "runtime.h"

namespace padmarlin {

// Blocks in turn, copies late: tests/test_dequantize.py and test_round.py have other schedules.
const emulator::LaunchOptions kOptions{0, emulator::Delivery::kLate, 1, {}};

int launch_dequantize(const DequantizeArguments& args, void*) {
  const DequantizeKernel kernel = dequantize_kernel_for(args);
  if (kernel == nullptr) return 1;
  const int blocks = static_cast<int>(dequantize_blocks(args.n, args.padded_k));
  emulator::launch({"dequantize_kernel", blocks, 1, kDequantizeThreads, kDequantizeSharedBytes},
                   kOptions, [&] { kernel(args); });
  return 0;
}

int launch_round(const RoundArguments& args, void*) {
  const RoundKernel kernel = round_kernel_for(args.dtype);
  const int blocks = static_cast<int>(round_blocks(args.m, args.n));
  emulator::launch({"round_kernel", blocks, 1, kRoundThreads, 0}, kOptions, [&] { kernel(args); });
  return 0;
}

}  // namespace padmarlin
