// SPDX-License-Identifier: Apache-2.0
// Which kernel, which output tile and which partition of the work for a problem: a pure, total
// function of (problem, device, measurements). Between kernel families a measurement decides where
// there is one (core/measured.h), else a prediction; between the few candidates of a family a cost
// in microseconds, predicted by core/gemm_cost.h. docs/kernel-schedule.md derives the rule.
// No CUDA, no torch: tested on the CPU over all shapes.
#pragma once

#include "core/gemm_cost.h"
#include "core/measured.h"
#include "core/scratch.h"

namespace padmarlin {

// Above this many rows the wgmma kernel takes over where nothing is measured: a prediction, by
// core/gemm_cost.h over the shapes of benchmarks/shapes.py (docs/kernel-schedule.md has the table).
//   4 bits                   32: tiles of 64 rows keep mma.sync busier than an H200's memory
//   8 bits                   64: weights take twice as long to come, and hide that
//   A copied 4 or 8 bytes    64: what wgmma gains is less than the pass that aligns A costs
//   A gathered, by elements  32: beyond four pairs a lane the mma kernel waits for each
constexpr int mma_rows(const GemmProblem& problem) {
  if (loads_elements(problem)) return 32;
  return problem.bits == 8 || problem.copy_bytes < 16 ? 64 : 32;
}

// Row tiles of a band (tile_position): they read the same weights at about the same time.
constexpr int kBand = 8;

// More tiles than a 32-bit number holds cannot be launched; no output of that size exists (2^31
// tiles of 64 x 64 have 2^43 elements).
constexpr bool is_computable(const GemmProblem& problem) {
  const int64_t m_tiles = (int64_t{problem.m} + 63) / 64;
  return m_tiles * (problem.padded_n / kTile) <= INT32_MAX;
}

namespace selection {

struct Best {
  GemmChoice choice = {};
  Cost cost = {};
  bool found = false;

  constexpr void offer(const GemmProblem& problem, const Device& device, const GemmChoice& other) {
    const Cost predicted = predicted_cost(problem, device, other);
    if (found && !(predicted < cost)) return;
    choice = other, cost = predicted, found = true;
  }
};

constexpr int m_steps_for(int m) { return m <= 8 ? 1 : m <= 16 ? 2 : m <= 32 ? 4 : kMaxMSteps; }

constexpr bool fits(const GemmProblem& problem, const Device& device, const BlockShape& shape) {
  return shared_bytes(problem.bits, problem.asymmetric, shape) <= device.shared_bytes;
}

// A block of the mma kernel and how many of it an SM holds; no partition yet.
constexpr GemmChoice mma_choice(const GemmProblem& problem, const Device& device,
                                const BlockShape& shape) {
  const int shared = shared_bytes(problem.bits, problem.asymmetric, shape);
  const int resident = device.sm_shared_bytes / (shared + kReservedSharedBytes);
  const int registers_allow = min_blocks_per_sm(problem.bits, shape.m_steps);
  return {.family = Family::kMma,
          .shape = shape,
          .tile_m = block_rows(shape),
          .tile_n = block_columns(shape),
          .threads = block_threads(shape),
          .stages = kStages,
          .shared_bytes = shared,
          .blocks_per_sm = resident < 1                 ? 1
                           : resident < registers_allow ? resident
                                                        : registers_allow,
          .m_tiles = div_up(problem.m, block_rows(shape)),
          .n_tiles = div_up(problem.padded_n, block_columns(shape)),
          .band = kBand};
}

constexpr GemmChoice wgmma_choice(const GemmProblem& problem, int rows) {
  const wgmma::SharedLayout shared = wgmma::shared_layout(rows, problem.bits, problem.asymmetric);
  return {.family = Family::kWgmma,
          .tile_m = rows,
          .tile_n = wgmma::kBlockColumns,
          .threads = wgmma::kThreads,
          .stages = shared.stages,
          .shared_bytes = shared.bytes,
          .blocks_per_sm = 1,
          .m_tiles = div_up(problem.m, rows),
          .n_tiles = div_up(problem.padded_n, wgmma::kBlockColumns),
          .band = kBand,
          .aligns_activations = needs_alignment(problem)};
}

constexpr void offer_partitions(const GemmProblem& problem, const Device& device, GemmChoice choice,
                                Best& best) {
  const int tiles = choice.m_tiles * choice.n_tiles, k_tiles = problem.padded_k / kTile;
  choice.partition = data_parallel(tiles, k_tiles, device.num_sms * choice.blocks_per_sm);
  best.offer(problem, device, choice);
  for (int per_sm = 1; per_sm <= choice.blocks_per_sm; ++per_sm) {
    const int blocks = device.num_sms * per_sm;
    // Beyond two tiles for each block only the uneven rest and one full turn are streamed: enough
    // for balance, with fewer partial tiles.
    const int streamed = tiles < 2 * blocks ? tiles : blocks + tiles % blocks;
    choice.partition = stream_k(tiles, k_tiles, blocks, streamed);
    best.offer(problem, device, choice);
    // Few tiles: equal parts, each block has one. Fewer parts than there are blocks may be better:
    // the block that comes last adds them all.
    const int most = tiles > 0 && blocks / tiles < k_tiles ? blocks / tiles : k_tiles;
    for (int splits = most; splits > 1; splits = splits * 3 / 4) {
      choice.partition = split_k(tiles, k_tiles, blocks, splits);
      best.offer(problem, device, choice);
    }
  }
}

// The same for every m: how many groups of warps share K inside a block.
constexpr int invariant_k_groups(const GemmProblem& problem, const Device& device) {
  return fits(problem, device, {8, 1, 2}) ? 2 : 1;
}

constexpr int kMaxInvariantSplits = 16;

// With this partition of K, whatever m is; `splits` 1 is none.
constexpr GemmChoice select_invariant(const GemmProblem& problem, const Device& device,
                                      int splits) {
  Best best;
  const int k_groups = invariant_k_groups(problem, device);
  for (const int column_warps : {4, 2, 1}) {
    const BlockShape shape{m_steps_for(problem.m), column_warps, k_groups};
    if (column_warps > 1 && !fits(problem, device, shape)) continue;
    GemmChoice choice = mma_choice(problem, device, shape);
    choice.partition = split_k(choice.m_tiles * choice.n_tiles, problem.padded_k / kTile,
                               device.num_sms * choice.blocks_per_sm, splits);
    best.offer(problem, device, choice);
  }
  return best.choice;
}

// The number of splits that is best for a single aligned row. Not for the activations' own copies:
// a single row of an odd length is aligned, two are not, and both have the same bits.
constexpr int invariant_splits(GemmProblem problem, const Device& device) {
  problem.m = 1;
  problem.copy_bytes = 16;
  int best = 1;
  double least = 0;
  for (int splits = 1; splits <= kMaxInvariantSplits; ++splits) {
    const GemmChoice choice = select_invariant(problem, device, splits);
    const double us = predicted_cost(problem, device, choice).total_us();
    if (splits == 1 || us < least) best = splits, least = us;
  }
  return best;
}

constexpr GemmChoice select_wgmma(const GemmProblem& problem, const Device& device) {
  Best best;
  for (const int rows : wgmma::kBlockRows) {
    offer_partitions(problem, device, wgmma_choice(problem, rows), best);
  }
  return best.choice;
}

constexpr GemmChoice select_mma(const GemmProblem& problem, const Device& device) {
  Best best;
  for (const int column_warps : {4, 2, 1}) {
    BlockShape shape{m_steps_for(problem.m), column_warps, kMaxBlockWarps / column_warps};
    while (shape.k_groups > 1 && !fits(problem, device, shape)) shape.k_groups /= 2;
    if (column_warps > 1 && !fits(problem, device, shape)) continue;
    offer_partitions(problem, device, mma_choice(problem, device, shape), best);
  }
  return best.choice;
}

}  // namespace selection

// Whether the wgmma kernel can serve a problem at all. Not batch_invariant: one family and one
// partition of K for every m, and the families add in different orders; so it is the one that
// serves every device.
constexpr bool can_use_wgmma(const GemmProblem& problem, const Device& device) {
  return device.wgmma && device.architecture == 90 && !problem.batch_invariant;
}

// Whether the scratch can serve a problem at all: on any device, but torch cuts K for each m anew.
constexpr bool can_use_scratch(const GemmProblem& problem) {
  return !problem.forbids_scratch && !problem.batch_invariant && fits_scratch(problem);
}

// False: what PADMARLIN_KERNEL asks for cannot be had. Callers refuse that.
constexpr bool is_allowed(const GemmProblem& problem, const Device& device) {
  if (problem.forced == Family::kWgmma) return can_use_wgmma(problem, device);
  if (problem.forced == Family::kScratch) return can_use_scratch(problem);
  return true;
}

enum class Reason : int {
  kOnlyOne,    // no other fused kernel can serve it, and nothing was measured
  kForced,     // PADMARLIN_KERNEL
  kMeasured,   // a row of the table
  kPredicted,  // mma_rows
};

struct FamilyChoice {
  Family family;
  Reason reason;
  int wgmma_from, scratch_from;    // the least m at which the rule takes each; kNever: at none
  const Measurement* measurement;  // the row that the rule is from; null: a prediction
};

// From scratch_from on the scratch, below it from wgmma_from on the wgmma kernel, else mma.sync.
// Without a measurement never the scratch.
constexpr FamilyChoice choose_family(const GemmProblem& problem, const Device& device,
                                     Measurements rows) {
  const bool wgmma = can_use_wgmma(problem, device), scratch = can_use_scratch(problem);
  FamilyChoice chosen = {Family::kMma, Reason::kOnlyOne, kNever, kNever, nullptr};
  if (!wgmma && !scratch) return chosen;
  const Measurement* const row = find_measurement(problem, device, rows);
  chosen.measurement = row;
  if (wgmma) chosen.wgmma_from = row != nullptr ? row->wgmma_from : mma_rows(problem) + 1;
  if (scratch && row != nullptr) chosen.scratch_from = row->scratch_from;
  if (problem.forced && is_allowed(problem, device)) {
    chosen.family = *problem.forced, chosen.reason = Reason::kForced;
    return chosen;
  }
  if (row != nullptr) {
    chosen.reason = Reason::kMeasured;
  } else if (wgmma) {
    chosen.reason = Reason::kPredicted;
  }
  if (problem.m >= chosen.scratch_from) {
    chosen.family = Family::kScratch;
  } else if (problem.m >= chosen.wgmma_from) {
    chosen.family = Family::kWgmma;
  }
  return chosen;
}

// For any computable problem with m, padded_n, padded_k > 0 and any device of compute capability
// 8.0 or newer. A grid has at most 2 * num_sms blocks.
constexpr GemmChoice select_gemm(const GemmProblem& problem, const Device& device,
                                 Measurements rows = kMeasured) {
  if (problem.batch_invariant) {
    return selection::select_invariant(problem, device,
                                       selection::invariant_splits(problem, device));
  }
  switch (choose_family(problem, device, rows).family) {
    case Family::kScratch:
      return select_scratch(problem, device);
    case Family::kWgmma:
      return selection::select_wgmma(problem, device);
    default:
      return selection::select_mma(problem, device);
  }
}

constexpr double predicted_us(const GemmProblem& problem, const Device& device,
                              const GemmChoice& choice) {
  return choice.family == Family::kScratch
             ? predicted_scratch_cost(problem, device, choice).total_us()
             : predicted_cost(problem, device, choice).total_us();
}

// The most counters that a choice needs: scattered split-K has at most kScatteredPerBlock parts for
// each of 2 * num_sms blocks, and at least two parts a tile.
constexpr int max_counters(int num_sms) { return kScatteredPerBlock * 2 * num_sms / 2; }

}  // namespace padmarlin
