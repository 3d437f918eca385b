// SPDX-License-Identifier: Apache-2.0
// Which block and which partition for a problem: a pure, total function of (problem, device).
// No CUDA, no torch: tested on the CPU over all shapes.
#pragma once

#include "core/layout.h"
#include "core/mma_block.h"
#include "core/stream_k.h"

namespace padmarlin {

struct Device {
  int num_sms;
  int shared_bytes;  // that one block may have
};

struct GemmProblem {
  int m, padded_n, padded_k;
  int bits;
  bool asymmetric;
  bool batch_invariant;  // the order of additions along K must not depend on m
};

struct GemmChoice {
  BlockShape shape;
  Partition partition;
  int m_tiles, n_tiles;
  int band;  // row tiles that run together
};

// 256 columns at best: the activations of a tile are read once for all of them. What does not fit
// gives up groups of warps first, then columns.
constexpr BlockShape select_shape(const GemmProblem& problem, const Device& device) {
  const int m_steps = problem.m <= 8 ? 1 : problem.m <= 16 ? 2 : problem.m <= 32 ? 4 : 8;
  BlockShape shape{m_steps, m_steps == 1 ? 2 : 4, m_steps == 1 ? 4 : 2};
  // The number of groups decides bits.
  if (problem.batch_invariant) shape.k_groups = 1;
  const auto fits = [&] {
    return shared_bytes(problem.bits, problem.asymmetric, shape) <= device.shared_bytes;
  };
  while (shape.k_groups > 1 && !fits()) shape.k_groups /= 2;
  while (shape.column_warps > 1 && !fits()) shape.column_warps /= 2;
  return shape;
}

constexpr GemmChoice select_gemm(const GemmProblem& problem, const Device& device) {
  const BlockShape shape = select_shape(problem, device);
  const int m_tiles = div_up(problem.m, block_rows(shape));
  const int n_tiles = div_up(problem.padded_n, block_columns(shape));
  const int tiles = m_tiles * n_tiles;
  return {shape, data_parallel(tiles, problem.padded_k / kTile, tiles), m_tiles, n_tiles, 2};
}

}  // namespace padmarlin
