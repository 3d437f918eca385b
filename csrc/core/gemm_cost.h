// SPDX-License-Identifier: Apache-2.0
// A problem, a device, a choice of kernel, and the time that choice is predicted to take. The
// constants are derived or assumed, none is measured by this project (docs/kernel-schedule.md):
// they rank candidates, they promise nothing.
// Pure constexpr C++: no CUDA, no torch.
#pragma once

#include <initializer_list>
#include <optional>

#include "core/instruction_counts.h"
#include "core/mma_block.h"
#include "core/stream_k.h"
#include "core/wgmma_block.h"

namespace padmarlin {

struct Device {
  int num_sms;
  int architecture;     // 10 * major + minor: 80, 86, 89, 90, 100, 120
  int shared_bytes;     // the most that one block may have
  int sm_shared_bytes;  // that the blocks of an SM share
  int dram_gbps;        // nominal bandwidth, GB/s
  bool wgmma = false;   // the library holds the sm_90a kernel

  bool operator==(const Device&) const = default;
};

// The driver keeps this much of shared memory for itself, for each resident block (sm_80 and up).
constexpr int kReservedSharedBytes = 1024;

enum class Family : int {
  kMma = 0,      // mma.sync, sm_80 and up
  kWgmma = 1,    // TMA and wgmma, sm_90a
  kScratch = 2,  // dequantized chunks and torch's matmul (core/scratch.h)
};

struct GemmProblem {
  int m, padded_n, padded_k, bits;
  bool asymmetric = false;
  Dequant dequant = Dequant::kTwoField;
  bool gathers = false;               // A goes through a column table
  int copy_bytes = 16;                // the widest copy that A's address and pitch allow
  bool batch_invariant = false;       // a row's bits must not depend on m
  std::optional<Family> forced = {};  // by PADMARLIN_KERNEL (core/forced_kernel.h)
  bool forbids_scratch = false;       // by PADMARLIN_SCRATCH, or torch has refused its product

  bool operator==(const GemmProblem&) const = default;
};

// The wgmma kernel reads A by TMA, in order, in 16-byte rows: cuda/align.h makes others such.
constexpr bool needs_alignment(const GemmProblem& problem) {
  return problem.gathers || problem.copy_bytes < 16;
}

// The mma kernel reads A where it is: through a table, or where no copy of 4 bytes is aligned, by
// elements.
constexpr bool loads_elements(const GemmProblem& problem) {
  return problem.gathers || problem.copy_bytes < 4;
}

struct GemmChoice {
  Family family = Family::kMma;
  BlockShape shape = {};  // of the mma family
  int tile_m = 0, tile_n = 0;
  int threads = 0, stages = 0, shared_bytes = 0;
  int blocks_per_sm = 1;  // that an SM holds at a time
  Partition partition = {};
  int m_tiles = 0, n_tiles = 0;     // of the scratch family, which has no blocks: its chunks
  int band = 1;                     // see tile_position
  bool aligns_activations = false;  // A is gathered or aligned by a pass before the kernel
};

constexpr int64_t partials_bytes(const GemmChoice& choice) {
  return static_cast<int64_t>(sizeof(float)) * num_partial_slots(choice.partition) * choice.tile_m *
         choice.tile_n;
}

// Memory, tensor cores and instruction slots are used side by side: the slowest one counts.
struct Cost {
  double memory_us, tensor_us, issue_us;
  double fixup_us;  // adding the parts of tiles, behind it
  double align_us;  // the pass over A, before it

  constexpr double total_us() const {
    const double busy = tensor_us > issue_us ? tensor_us : issue_us;
    return (memory_us > busy ? memory_us : busy) + fixup_us + align_us;
  }
  // Takes less time; as much, but keeps less busy: half as many tiles, each twice as large.
  constexpr bool operator<(const Cost& other) const {
    const double us = total_us(), others = other.total_us();
    if (us != others) return us < others;
    return memory_us + tensor_us + issue_us < other.memory_us + other.tensor_us + other.issue_us;
  }
};

namespace cost {

// What is sustained of the nominal bandwidth: 4.3 of 4.8 TB/s for a copy on an H200 (roofline.md).
constexpr double kDramEfficiency = 0.9;
// L2 to one SM. Assumed: 5.5 TB/s over the 132 SMs of an H200.
constexpr double kL2GbpsPerSm = 42;
// Latency of memory under load, 0.7 to 1.1 us: bytes in flight / latency bounds an SM's rate.
constexpr double kLatencyUs = 1.0;
// Storing, counting and coming back: two trips to L2 and an atomic. Assumed.
constexpr double kFixupUs = 1.2;
// The last block reads partial tiles at some 60 bytes a clock, 110 GB/s. Assumed.
constexpr double kFixupGbps = 110;
// Clock under load. Assumed.
constexpr double kGhz = 1.7;
// Of an SM's issue slots, four a clock. Assumed: LOP3 and PRMT, half of what dequantizes two_field
// weights, run at half rate, so that such code cannot fill more than nine slots of ten.
constexpr double kSchedulers = 4, kIssueEfficiency = 0.9;
// An element of A from L2, for a lane that waits for it: published microbenchmarks of sm_90. The
// mma kernel loads kHeldElements of a lane ahead (cuda/activations.cuh) and waits for each further
// one.
constexpr double kElementClocks = 270;
constexpr int kHeldElements = 4;
// A kernel more, from the end of the one before to its first instruction: 1.5 to 2 us in a graph
// (docs/kernel-schedule.md). Assumed.
constexpr double kLaunchUs = 2;

// Multiply-adds of 16-bit numbers per clock and SM, accumulated in fp32: the arithmetic of the
// whitepapers, and for mma.sync on sm_90 one m16n8k16 (2048) in 6.2 clocks on each of four
// schedulers. sm_100 has no published figure for mma.sync and is taken for an sm_90.
constexpr double fma_per_clock(const Device& device, Family family) {
  if (family == Family::kWgmma) return 0.8 * 4096 / 2;
  switch (device.architecture / 10) {
    case 8:
      return device.architecture == 80 ? 1024 : 512;
    case 12:
      return 512;
    default:
      return 4 * 2048 / 6.2;
  }
}

// k-tiles on the busiest SM. Blocks go round the SMs in turn.
constexpr double busiest_sm(const Partition& p, const Device& device) {
  const int per_sm = div_up(p.blocks, device.num_sms);
  const int rest = p.tiles - p.streamed;
  double units = 0;
  if (p.streamed > 0) units += double(per_sm) * (p.run + (p.longer > 0 ? 1 : 0));
  if (p.splits > 1 && p.scattered) {
    const int64_t items = int64_t{rest} * p.splits;
    return units + double(div_up(items, device.num_sms)) * div_up(p.k_tiles, p.splits);
  }
  return units + double(div_up(rest, device.num_sms)) * p.k_tiles;
}

// The most parts that a tile has.
constexpr int most_splits(const Partition& p) {
  if (p.splits > 1) return p.splits;
  if (!cuts_tiles(p) || p.k_tiles < 2) return 1;
  const int most = (p.k_tiles - 2) / p.run + 2;
  return most < p.blocks ? most : p.blocks;
}

// Rows of A that a block reads of a tile.
constexpr int rows_read(const GemmProblem& problem, const GemmChoice& choice) {
  return problem.m < choice.tile_m ? problem.m : choice.tile_m;
}

// Blocks that the busiest SM runs at a time.
constexpr int resident_blocks(const GemmChoice& choice, const Device& device) {
  const int most = div_up(choice.partition.blocks, device.num_sms);
  return most < choice.blocks_per_sm ? most : choice.blocks_per_sm;
}

// Instructions of a block's warps for one k-tile.
constexpr double instructions(const GemmProblem& problem, const GemmChoice& choice) {
  const counts::Kind& kind = counts::kind_of(problem.bits, problem.dequant, problem.asymmetric);
  if (choice.family == Family::kWgmma) {
    return kind.wgmma_turn * wgmma::kConsumers * double(wgmma::kWarpgroup / kWarp);
  }
  // Pieces of A that a warp copies: all of its lanes at a time.
  const double bytes = rows_read(problem, choice) * kActivationRowBytes;
  const auto pieces = [&](int piece_bytes) { return bytes / (piece_bytes * kWarp); };
  int of_weights = counts::mma_iteration(choice.shape.m_steps) + kind.mma_extra;
  double of_activations = 0;
  if (needs_alignment(problem)) of_weights += counts::kLongWay;
  if (loads_elements(problem)) {
    of_activations = pieces(4) * counts::kElementPair;
  } else if (problem.copy_bytes < 16) {
    of_activations = (pieces(problem.copy_bytes) - pieces(16)) * counts::kNarrowCopy;
  }
  return choice.shape.column_warps * double(of_weights) + of_activations;
}

// Clocks that an SM waits for elements of A, for one k-tile: its groups of warps wait side by side.
constexpr double waits_for_elements(const GemmProblem& problem, const Device& device,
                                    const GemmChoice& choice) {
  if (choice.family != Family::kMma || !loads_elements(problem)) return 0;
  const int pairs = div_up(rows_read(problem, choice), choice.shape.column_warps);
  if (pairs <= kHeldElements) return 0;
  return (pairs - kHeldElements) * kElementClocks /
         (choice.shape.k_groups * resident_blocks(choice, device));
}

// The pass that aligns A: read and written once, at the memory's speed though L2 may hold it.
constexpr double align_us(const GemmProblem& problem, const Device& device,
                          const GemmChoice& choice) {
  if (!choice.aligns_activations) return 0;
  const double bytes = 2.0 * problem.m * problem.padded_k * 2;
  return kLaunchUs + kLatencyUs + bytes / (device.dram_gbps * kDramEfficiency * 1e3);
}

}  // namespace cost

constexpr Cost predicted_cost(const GemmProblem& problem, const Device& device,
                              const GemmChoice& choice) {
  const Partition& p = choice.partition;
  const double busiest = cost::busiest_sm(p, device);
  const double share = double(p.tiles) * p.k_tiles / device.num_sms;
  const double balance = share > 0 ? busiest / share : 1;
  const int rows = cost::rows_read(problem, choice);

  // Of one k-tile: weights, and scales at 128 rows a group.
  const double weights = choice.tile_n * (kTile * problem.bits / 8.0 + 1);
  const double activations = rows * kActivationRowBytes;
  const double from_dram = choice.n_tiles * p.k_tiles * weights * balance /
                           (device.dram_gbps * cost::kDramEfficiency * 1e3);
  const double from_l2 = busiest * (weights + activations) / (cost::kL2GbpsPerSm * 1e3);
  const int groups = choice.family == Family::kMma ? choice.shape.k_groups : 1;
  const double in_flight =
      double(cost::resident_blocks(choice, device)) * (choice.stages - 1) * groups * weights;
  const double by_latency = busiest * weights / in_flight * cost::kLatencyUs;
  const double by_elements =
      busiest * cost::waits_for_elements(problem, device, choice) / (cost::kGhz * 1e3);

  Cost predicted = {};
  for (const double us : {from_dram, from_l2, by_latency, by_elements}) {
    if (us > predicted.memory_us) predicted.memory_us = us;
  }
  predicted.tensor_us = busiest * choice.tile_m * choice.tile_n * kTile /
                        (cost::fma_per_clock(device, choice.family) * cost::kGhz * 1e3);
  predicted.issue_us = busiest * cost::instructions(problem, choice) /
                       (cost::kSchedulers * cost::kIssueEfficiency * cost::kGhz * 1e3);
  if (const int splits = cost::most_splits(p); splits > 1) {
    const double part = double(round_up(rows, kStepRows)) * choice.tile_n * sizeof(float);
    predicted.fixup_us = cost::kFixupUs + splits * part / (cost::kFixupGbps * 1e3);
  }
  predicted.align_us = cost::align_us(problem, device, choice);
  return predicted;
}

}  // namespace padmarlin
