// SPDX-License-Identifier: Apache-2.0
// Which tile and how many K splits for a problem: a pure, total function of (problem, device).
// No CUDA, no torch: tested on the CPU over all shapes.
#pragma once

#include "core/layout.h"

namespace padmarlin {
namespace v1 {  // core/select_gemm.h has the same names, for the kernel that replaces this one

constexpr int kMaxMSlices = 4;  // M tiles of 16, 32 or 64 rows
constexpr int kBlockWarps = 4;  // a warp owns a 64-column tile: a block covers 256 columns
constexpr int kBlockColumns = kBlockWarps * kTile;
constexpr int kBlockThreads = kBlockWarps * kWarp;
constexpr int kMaxSplits = 16;  // beyond that the reduction costs more than idle SMs

struct Device {
  int num_sms;
};

struct GemmProblem {
  int m, padded_n, padded_k;
  bool batch_invariant;  // the K partition must not depend on m
};

struct GemmChoice {
  int m_slices;  // the M tile is 16 * m_slices rows
  int splits;    // parts of K, summed in order by a second kernel if > 1
};

constexpr GemmChoice select_gemm(const GemmProblem& problem, const Device& device) {
  const int m_slices = problem.m <= 16 ? 1 : problem.m <= 32 ? 2 : kMaxMSlices;
  // The splits of m = 1 for every m, if the caller wants bits that do not depend on m.
  const int64_t m_tiles = problem.batch_invariant ? 1 : div_up(problem.m, 16 * m_slices);
  const int64_t blocks = m_tiles * div_up(problem.padded_n, kBlockColumns);
  const int k_tiles = problem.padded_k / kTile;
  // Two blocks per SM keep enough bytes in flight to hide DRAM latency; a split needs at least
  // four k-tiles, or its pipeline never fills.
  int splits = static_cast<int>(2 * device.num_sms / (blocks > 0 ? blocks : 1));
  if (splits > k_tiles / 4) splits = k_tiles / 4;
  if (splits > kMaxSplits) splits = kMaxSplits;
  return {m_slices, splits < 1 ? 1 : splits};
}

}  // namespace v1

using v1::Device;
using v1::GemmChoice;
using v1::GemmProblem;
using v1::kBlockColumns;
using v1::kBlockThreads;
using v1::kBlockWarps;
using v1::select_gemm;

}  // namespace padmarlin
