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
  return m_steps == 1 ? 244 : m_steps == 2 ? 267 : m_steps == 4 ? 300 : 382;
}

struct Kind {
  int bits;
  Dequant dequant;
  bool asymmetric;
  int mma_extra;   // beyond mma_iteration
  int wgmma_turn;  // of a consumer warp for 32 columns, 8 wgmma included; rows change it by 3 %
};

// mma_extra: 16 times what tests/compile_gates/budget.txt has more for 8 weights (one_field 2,
// asymmetric 3, wide 11, 8 bits 1 less), and loads and copies: of zeros 8, of the second plane at 8
// bits 10. Counted at m_steps 1 but for {8, wide}, which is {4, wide} and those two.
inline constexpr Kind kKinds[] = {
    {4, Dequant::kTwoField, false, 0, 167},  {4, Dequant::kTwoField, true, 56, 204},
    {4, Dequant::kOneField, false, 32, 184}, {4, Dequant::kOneField, true, 88, 221},
    {4, Dequant::kWide, true, 184, 268},     {8, Dequant::kOneField, false, -6, 163},
    {8, Dequant::kOneField, true, 50, 200},  {8, Dequant::kWide, true, 178, 264},
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

// mma kernel, activations that are not copied 16 bytes at a time: such a tile is not plain and
// takes the long way (docs/kernel-mma.md). A pair of elements that a lane loads by itself and
// stores: at M = 8 and 2 column warps, four pairs, 122 instructions more than plain, the long way
// included. A narrower copy is a turn of a loop of about 8, and so is each one more.
constexpr int kLongWay = 43, kElementPair = 20, kNarrowCopy = 8;

}  // namespace padmarlin::counts
