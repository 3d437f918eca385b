// SPDX-License-Identifier: Apache-2.0
// What was measured about which kernel is faster; select_gemm asks here before it predicts.
// `python benchmarks/tune.py --write` writes the rows, nobody else does: a number that no results
// file holds has no place here. Pure constexpr C++: no CUDA, no torch.
#pragma once

#include <cstdint>
#include <iterator>
#include <span>
#include <string_view>

#include "core/gemm_cost.h"

namespace padmarlin {

// In place of a number of rows: at none that was measured.
constexpr int kNever = INT32_MAX;

// For one GPU and one kind of weight: from how many rows on which family is the fastest.
struct Measurement {
  int architecture, num_sms, dram_gbps;  // the GPU, as Device tells it
  int bits;
  bool aligns;       // the wgmma kernel needs align_activations before it (measured: act-order)
  int wgmma_from;    // the least M at which the wgmma kernel beats the mma kernel, or kNever
  int scratch_from;  // ... at which the scratch beats the kernel that wgmma_from chooses, or kNever
  std::string_view date, commit, file;  // of the results, under benchmarks/results
};

using Measurements = std::span<const Measurement>;

namespace measured {

// clang-format off
inline constexpr Measurement kRows[] = {
    {},  // an array is never empty; kMeasured begins behind it
};
// clang-format on

// A GPU tells a clock from which its bandwidth follows; by name it has the data sheet's. They
// differ by 2 % on an H200. Other GPUs of as many SMs differ by 40 % (H100).
constexpr bool is_same_device(const Measurement& row, const Device& device) {
  const int difference = row.dram_gbps - device.dram_gbps;
  return row.architecture == device.architecture && row.num_sms == device.num_sms &&
         10 * (difference < 0 ? -difference : difference) <= row.dram_gbps;
}

}  // namespace measured

constexpr Measurements kMeasured{measured::kRows + 1, std::size(measured::kRows) - 1};

// The row for a problem on a device; null if nobody has measured it.
constexpr const Measurement* find_measurement(const GemmProblem& problem, const Device& device,
                                              Measurements rows) {
  for (const Measurement& row : rows) {
    if (row.bits == problem.bits && row.aligns == needs_alignment(problem) &&
        measured::is_same_device(row, device)) {
      return &row;
    }
  }
  return nullptr;
}

}  // namespace padmarlin
