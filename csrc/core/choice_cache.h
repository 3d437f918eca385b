// SPDX-License-Identifier: Apache-2.0
// select_gemm with a memory: a model calls with the same few problems again and again, and the
// choice takes about a microsecond, with batch_invariant about five. Pure C++: no CUDA, no torch.
#pragma once

#include <array>

#include "core/select_gemm.h"

namespace padmarlin {

// Not for several threads at a time: each has its own.
class ChoiceCache {
 public:
  // `rows` must outlive it.
  explicit ChoiceCache(Measurements rows = kMeasured) : rows_(rows) {}

  const GemmChoice& choose(const GemmProblem& problem, const Device& device) {
    Entry& entry = entries_[place(problem)];
    if (!(entry.problem == problem && entry.device == device)) {
      entry = {problem, device, select_gemm(problem, device, rows_)};
    }
    return entry.choice;
  }

 private:
  struct Entry {
    GemmProblem problem = {};  // m = 0: nobody's
    Device device = {};
    GemmChoice choice = {};
  };
  static constexpr int kPlaces = 128;

  // Layers of a model differ in multiples of 64, batches by one.
  static int place(const GemmProblem& problem) {
    const uint32_t mixed = static_cast<uint32_t>(problem.m) * 0x9e3779b9u ^
                           static_cast<uint32_t>(problem.padded_n) * 0x85ebca6bu ^
                           static_cast<uint32_t>(problem.padded_k) * 0xc2b2ae35u;
    return static_cast<int>(mixed >> 16) % kPlaces;
  }

  Measurements rows_;
  std::array<Entry, kPlaces> entries_;
};

}  // namespace padmarlin
