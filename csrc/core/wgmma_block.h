// SPDX-License-Identifier: Apache-2.0
// What one block of the wgmma kernel (sm_90a) is, and what that takes of shared memory.
// Pure constexpr C++: no CUDA, no torch.
#pragma once

#include "core/mma_block.h"

namespace padmarlin {

// An output tile has 256 columns of the weight, 128 for each of two consumer warpgroups, and one of
// these numbers of rows. The accumulators take as many registers of a thread as a tile has rows,
// and 176 is the most that leaves enough for the operands.
constexpr int kWgmmaColumns = 256;
constexpr int kWgmmaRows[] = {64, 128, 176};
constexpr int kWgmmaThreads = 3 * 128;  // one producer warpgroup, two consumers
constexpr int kWgmmaMaxStages = 6;

constexpr int wgmma_stage_bytes(int bits, bool asymmetric, int rows) {
  return rows * kActivationRowBytes + kWgmmaColumns / kTile * warp_stage_bytes(bits, asymmetric);
}

// A pair of mbarriers for each stage, and a word for the addition of partial tiles.
constexpr int wgmma_shared_bytes(int bits, bool asymmetric, int rows, int stages) {
  return stages * (wgmma_stage_bytes(bits, asymmetric, rows) + 16) + 16;
}

}  // namespace padmarlin
