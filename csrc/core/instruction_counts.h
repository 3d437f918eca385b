// SPDX-License-Identifier: Apache-2.0
// How many instructions a warp issues for a k-tile (64 of K), by kernel and kind of weights.
// Counted in the machine code of sm_90a (nvcc 13.0), for fp16, bf16 differs by less than 1 %; taken
// for other architectures too. core/gemm_cost.h predicts with them.
// tests/test_instruction_counts.py holds them against a compiled library: whoever changes a loop
// changes its number here alone. Pure constexpr C++: no CUDA, no torch.
#pragma once

#include "core/layout.h"

namespace padmarlin::counts {

// mma kernel: what an iteration executes for 64 columns of two_field symmetric weights, with copies
// of 16 bytes in the middle of K (docs/kernel-mma.md), by m_steps.
constexpr int mma_iteration(int m_steps) {
  return m_steps == 1 ? 287 : m_steps == 2 ? 307 : m_steps == 4 ? 343 : 414;
}

struct Kind {
  int bits;
  Dequant dequant;
  bool asymmetric;
  int mma_extra;   // beyond mma_iteration
  int wgmma_turn;  // of a consumer warp for 32 columns, 8 wgmma included; rows change it by 3 %
};

// mma_extra: 16 times what tests/compile_gates/budget.txt has more for 8 weights (one_field 2,
// asymmetric 3, wide 11, 8 bits 1 less), and a load for each k-slice and the copies: of zeros 4 +
// 1, of the second plane at 8 bits 4 + 4.
inline constexpr Kind kKinds[] = {
    {4, Dequant::kTwoField, false, 0, 167},  {4, Dequant::kTwoField, true, 53, 204},
    {4, Dequant::kOneField, false, 32, 184}, {4, Dequant::kOneField, true, 85, 221},
    {4, Dequant::kWide, true, 181, 268},     {8, Dequant::kOneField, false, -8, 163},
    {8, Dequant::kOneField, true, 45, 200},  {8, Dequant::kWide, true, 173, 264},
};

// Of weights that no kernel serves (8 bits have no two_field): the cheapest of those bits.
constexpr const Kind& kind_of(int bits, Dequant dequant, bool asymmetric) {
  const Kind* cheapest = nullptr;
  for (const Kind& kind : kKinds) {
    if (kind.bits != bits || kind.asymmetric != asymmetric) continue;
    if (kind.dequant == dequant) return kind;
    if (cheapest == nullptr) cheapest = &kind;
  }
  return *cheapest;
}

// mma kernel, activations that are not copied 16 bytes at a time. A pair of elements that a lane
// loads by itself and stores: at M = 8 and 2 column warps, four pairs, 75 instructions more
// (docs/kernel-mma.md). A narrower copy is a turn of a loop of about 8, and so is each one more.
constexpr int kElementPair = 19, kNarrowCopy = 8;

}  // namespace padmarlin::counts
