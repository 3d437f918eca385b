// SPDX-License-Identifier: Apache-2.0
// The scratch family: weights are dequantized a chunk of columns at a time, torch's matmul makes
// fp32 products of it, a chunk of rows at a time, and those are rounded into the output. Which
// chunks: a pure function, bounded in memory. docs/scratch.md derives it.
// Pure constexpr C++: no CUDA, no torch.
#pragma once

#include "core/gemm_cost.h"

namespace padmarlin {

namespace scratch {

// The two buffers never have more, whatever the problem.
constexpr int64_t kMaxWeightBytes = int64_t{256} << 20;
constexpr int64_t kMaxProductBytes = int64_t{64} << 20;

constexpr int kWeightBytes = 2;   // of a dequantized weight
constexpr int kProductBytes = 4;  // fp32

// A chunk is cut where cuBLAS cuts its own tiles, so that none is mostly padding. Assumed: 128 rows
// by 256 columns, the tile of its large products on sm_90.
constexpr int kTileRows = 128;
constexpr int kTileColumns = 256;

// Columns whose products fit with at least this many rows: fewer would leave SMs without a tile.
constexpr int kLeastRows = 2 * kTileRows;
constexpr int kMostColumns = static_cast<int>(kMaxProductBytes / kProductBytes / kLeastRows);

constexpr int64_t weight_bytes(int columns, int padded_k) {
  return int64_t{kWeightBytes} * columns * padded_k;
}
constexpr int64_t product_bytes(int rows, int columns) {
  return int64_t{kProductBytes} * rows * columns;
}

// How many columns a chunk may have, a multiple of 64; 0: not even a tile fits.
constexpr int max_columns(int padded_k) {
  const int64_t fitting = kMaxWeightBytes / weight_bytes(1, padded_k) / kTile * kTile;
  return static_cast<int>(fitting < kMostColumns ? fitting : kMostColumns);
}

}  // namespace scratch

constexpr bool fits_scratch(const GemmProblem& problem) {
  return scratch::max_columns(problem.padded_k) > 0;
}

struct ScratchCost {
  double dequantize_us = 0, matmul_us = 0, round_us = 0, launch_us = 0;

  constexpr double total_us() const { return dequantize_us + matmul_us + round_us + launch_us; }
  constexpr ScratchCost operator*(int times) const {
    return {times * dequantize_us, times * matmul_us, times * round_us, times * launch_us};
  }
  constexpr void operator+=(const ScratchCost& other) {
    dequantize_us += other.dequantize_us, matmul_us += other.matmul_us;
    round_us += other.round_us, launch_us += other.launch_us;
  }
};

namespace scratch {

// What a kernel writes and the next one reads at the speed of L2: half of the L2 of an A100 (40
// MB), H100 and H200 (50 MB), all of a 3060's. Assumed for others.
constexpr int64_t resident_bytes(const Device& device) {
  switch (device.architecture) {
    case 80:
      return int64_t{20} << 20;
    case 86:
      return int64_t{3} << 20;
    default:
      return int64_t{24} << 20;
  }
}

// What torch's matmul reaches: cuBLAS is as good as the wgmma kernel's assumed rate on sm_90, and
// has instructions on sm_100 that this library has not (twice as many products a clock).
constexpr double fma_per_clock(const Device& device) {
  if (device.architecture == 90) return cost::fma_per_clock(device, Family::kWgmma);
  if (device.architecture / 10 == 10) return 2 * cost::fma_per_clock(device, Family::kWgmma);
  return cost::fma_per_clock(device, Family::kMma);
}

constexpr double traffic_us(int64_t bytes, int64_t footprint, const Device& device) {
  const double gbps = footprint <= resident_bytes(device)
                          ? cost::kL2GbpsPerSm * device.num_sms
                          : device.dram_gbps * cost::kDramEfficiency;
  return bytes / (gbps * 1e3);
}

// One product of rows x columns, and its rounding.
constexpr ScratchCost product_cost(const GemmProblem& problem, const Device& device, int rows,
                                   int columns) {
  const int64_t tiles = int64_t{div_up(rows, kTileRows)} * div_up(columns, kTileColumns);
  const double tile_us = double(kTileRows) * kTileColumns * problem.padded_k /
                         (fma_per_clock(device) * cost::kGhz * 1e3);
  // The matmul's stores are hidden behind its arithmetic; the rounding reads and stores.
  const int64_t products = product_bytes(rows, columns);
  return {.matmul_us = div_up(tiles, device.num_sms) * tile_us,
          .round_us = traffic_us(products + products / 2, products, device),
          .launch_us = 2 * cost::kLaunchUs};
}

// A chunk of columns: the weights once, then all rows.
constexpr ScratchCost columns_cost(const GemmProblem& problem, const Device& device,
                                   const GemmChoice& choice, int columns) {
  const int full = choice.m_tiles - 1;
  const int64_t bytes = weight_bytes(columns, problem.padded_k);
  const int64_t packed = bytes / kWeightBytes * problem.bits / 8;
  ScratchCost sum = {.dequantize_us = traffic_us(bytes, bytes, device) +
                                      packed / (device.dram_gbps * cost::kDramEfficiency * 1e3),
                     .launch_us = cost::kLaunchUs};
  sum += product_cost(problem, device, choice.tile_m, columns) * full;
  sum += product_cost(problem, device, problem.m - full * choice.tile_m, columns);
  return sum;
}

}  // namespace scratch

// Of a choice of this family: chunks of tile_m x tile_n, the last of each row and column smaller.
constexpr ScratchCost predicted_scratch_cost(const GemmProblem& problem, const Device& device,
                                             const GemmChoice& choice) {
  const int full = choice.n_tiles - 1;
  ScratchCost sum = scratch::columns_cost(problem, device, choice, choice.tile_n) * full;
  sum += scratch::columns_cost(problem, device, choice, problem.padded_n - full * choice.tile_n);
  return sum;
}

namespace scratch {

constexpr int smaller(int64_t a, int64_t b) { return static_cast<int>(a < b ? a : b); }

// `size` in `count` equal parts, each but the last a multiple of `step`.
constexpr int part(int size, int count, int step) {
  return smaller(size, round_up(div_up(size, count), step));
}

constexpr GemmChoice chunks(const GemmProblem& problem, int rows, int columns) {
  return {.family = Family::kScratch,
          .tile_m = rows,
          .tile_n = columns,
          .m_tiles = div_up(problem.m, rows),
          .n_tiles = div_up(problem.padded_n, columns)};
}

// Rows of a chunk whose products have at most so many bytes.
constexpr int rows_within(const GemmProblem& problem, int columns, int64_t bytes) {
  const int64_t fitting = bytes / product_bytes(1, columns) / kTileRows * kTileRows;
  const int64_t most = fitting < kLeastRows ? kLeastRows : fitting;
  return part(problem.m, div_up(problem.m, most), kTileRows);
}

// More chunks than these have launches that nothing pays for.
constexpr int kMoreChunks = 12;

}  // namespace scratch

// Chunks that fit, of the least predicted time: small ones stay in L2, large ones fill the SMs.
// For a problem that fits_scratch.
constexpr GemmChoice select_scratch(const GemmProblem& problem, const Device& device) {
  const int most = scratch::max_columns(problem.padded_k);
  const int step = most < scratch::kTileColumns ? kTile : scratch::kTileColumns;
  const int least_count = div_up(problem.padded_n, most / step * step);
  GemmChoice best = {};
  double least_us = 0;
  for (int count = least_count; count <= least_count + scratch::kMoreChunks; ++count) {
    const int columns = scratch::part(problem.padded_n, count, step);
    for (const int64_t bytes : {scratch::kMaxProductBytes, scratch::resident_bytes(device)}) {
      const int rows = scratch::rows_within(problem, columns, bytes);
      const GemmChoice choice = scratch::chunks(problem, rows, columns);
      const double us = predicted_scratch_cost(problem, device, choice).total_us();
      if (best.n_tiles > 0 && us >= least_us) continue;
      best = choice, least_us = us;
    }
  }
  return best;
}

constexpr int64_t scratch_weight_bytes(const GemmProblem& problem, const GemmChoice& choice) {
  return scratch::weight_bytes(choice.tile_n, problem.padded_k);
}
constexpr int64_t scratch_product_bytes(const GemmChoice& choice) {
  return scratch::product_bytes(choice.tile_m, choice.tile_n);
}

}  // namespace padmarlin
