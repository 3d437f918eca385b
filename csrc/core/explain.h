// SPDX-License-Identifier: Apache-2.0
// What select_gemm decides, in words and numbers, for `padmarlin env --explain`.
// Pure C++: no CUDA, no torch.
#pragma once

#include <cstdarg>
#include <cstdio>
#include <string>
#include <string_view>

#include "core/select_gemm.h"

namespace padmarlin {

[[gnu::format(printf, 1, 2)]] inline std::string formatted(const char* format, ...) {
  char line[256];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  return line;
}

inline std::string describe_kernel(const GemmChoice& choice) {
  if (choice.family == Family::kWgmma) {
    return formatted("wgmma (sm_90a), %d threads", choice.threads);
  }
  if (choice.family == Family::kScratch) {
    return "weights dequantized into a scratch, then torch's matmul, fp32 products rounded once";
  }
  return formatted("mma.sync (sm_80 and up), %d threads: %d warp(s) along N, %d along K",
                   choice.threads, choice.shape.column_warps, choice.shape.k_groups);
}

inline std::string describe_partition(const GemmChoice& choice) {
  const Partition& p = choice.partition;
  if (p.splits > 1) {
    return formatted("split-K: every tile in %d parts, %s, over %d blocks", p.splits,
                     p.scattered ? "by different blocks" : "by one block", p.blocks);
  }
  if (p.streamed == 0)
    return formatted("data-parallel: %d tiles over %d blocks", p.tiles, p.blocks);
  const std::string rest =
      p.streamed < p.tiles ? formatted(" of %d tiles, the rest whole", p.streamed) : "";
  return formatted("stream-K over %d blocks: %d k-tiles each", p.blocks,
                   p.run + (p.longer > 0 ? 1 : 0)) +
         rest;
}

// One line for logs and tests.
inline std::string describe(const GemmChoice& choice) {
  if (choice.family == Family::kScratch) {
    return formatted("%d x %d chunks, scratch", choice.tile_m, choice.tile_n);
  }
  return formatted("%d x %d tiles, %s; %s", choice.tile_m, choice.tile_n,
                   describe_kernel(choice).c_str(), describe_partition(choice).c_str());
}

// As PADMARLIN_KERNEL has it.
constexpr const char* family_name(Family family) {
  return family == Family::kWgmma ? "wgmma" : family == Family::kScratch ? "scratch" : "mma";
}

// What decided between the families.
inline std::string describe_reason(const FamilyChoice& chosen) {
  switch (chosen.reason) {
    case Reason::kOnlyOne:
      return "the only fused kernel that can serve this";
    case Reason::kForced:
      return formatted("PADMARLIN_KERNEL=%s", family_name(chosen.family));
    case Reason::kPredicted:
      return "a prediction: nobody has measured this GPU and kind of weight";
    case Reason::kMeasured:
      break;
  }
  const auto text = [](std::string_view of) { return std::string(of); };
  const Measurement& row = *chosen.measurement;
  return formatted("a measurement, %s at %s: %s", text(row.date).c_str(), text(row.commit).c_str(),
                   text(row.file).c_str());
}

// Where the rule of `chosen` takes a family: from `from` rows on.
inline std::string describe_start(const FamilyChoice& chosen, Family family, int from) {
  if (chosen.family == family) return "chosen";
  const char* const basis = chosen.measurement != nullptr ? "a measurement" : "a prediction";
  if (from == kNever) return formatted("never (%s)", basis);
  return formatted("from M = %d on (%s)", from, basis);
}

inline std::string why_not_wgmma(const GemmProblem& problem, const Device& device,
                                 Measurements rows = kMeasured) {
  if (device.architecture != 90) {
    return formatted("not on sm_%d: wgmma exists on sm_90 alone, mma.sync serves this GPU",
                     device.architecture);
  }
  if (!device.wgmma) return "not in this build";
  if (problem.batch_invariant) return "not with batch_invariant: one kernel family for every M";
  const FamilyChoice chosen = choose_family(problem, device, rows);
  return describe_start(chosen, Family::kWgmma, chosen.wgmma_from);
}

inline std::string why_not_scratch(const GemmProblem& problem, const Device& device,
                                   Measurements rows = kMeasured) {
  if (problem.batch_invariant) return "not with batch_invariant: one kernel family for every M";
  if (problem.forbids_scratch) return "forbidden by PADMARLIN_SCRATCH=0";
  if (!fits_scratch(problem)) {
    return formatted("not for K = %d: 64 columns of weights have more than %d MB", problem.padded_k,
                     static_cast<int>(scratch::kMaxWeightBytes >> 20));
  }
  const FamilyChoice chosen = choose_family(problem, device, rows);
  if (chosen.family != Family::kScratch && chosen.measurement == nullptr) {
    return "only where a measurement says so, and there is none";
  }
  return describe_start(chosen, Family::kScratch, chosen.scratch_from);
}

// Why what PADMARLIN_KERNEL asks for cannot be had, where !is_allowed.
inline std::string why_not_forced(const GemmProblem& problem, const Device& device) {
  return problem.forced == Family::kScratch ? why_not_scratch(problem, device)
                                            : why_not_wgmma(problem, device);
}

// How a fused kernel does it.
inline std::string describe_blocks(const GemmProblem& problem, const Device& device,
                                   const GemmChoice& choice) {
  std::string text = formatted("  tile       %d x %d (M x N), 64 of K at a time; %d x %d of them\n",
                               choice.tile_m, choice.tile_n, choice.m_tiles, choice.n_tiles);
  text += formatted("  memory     %d stages, %.1f of %d KB of shared memory, %d block%s an SM\n",
                    choice.stages, choice.shared_bytes / 1024.0, device.shared_bytes / 1024,
                    choice.blocks_per_sm, choice.blocks_per_sm == 1 ? "" : "s");
  text += formatted("  schedule   %s\n", describe_partition(choice).c_str());
  if (const int64_t bytes = partials_bytes(choice); bytes > 0) {
    text += formatted("  workspace  %.1f MB for partial tiles, at most %d parts of one\n",
                      bytes / 1e6, cost::most_splits(choice.partition));
  }
  if (choice.aligns_activations) {
    text += "  before it  a pass that gathers or aligns the activations\n";
  }
  const Cost cost = predicted_cost(problem, device, choice);
  text += formatted("  predicted  %.1f us: memory %.1f, tensor cores %.1f, instructions %.1f,\n",
                    cost.total_us(), cost.memory_us, cost.tensor_us, cost.issue_us);
  text += formatted("             side by side; partial tiles %.1f", cost.fixup_us);
  if (cost.align_us > 0) text += formatted("; the pass before it %.1f", cost.align_us);
  return text + "\n";
}

// How the scratch does it.
inline std::string describe_chunks(const GemmProblem& problem, const Device& device,
                                   const GemmChoice& choice) {
  std::string text = formatted("  chunks     %d x %d (M x N), %d x %d of them\n", choice.tile_m,
                               choice.tile_n, choice.m_tiles, choice.n_tiles);
  text +=
      formatted("  buffers    %.1f MB of weights, %.1f MB of products\n",
                scratch_weight_bytes(problem, choice) / 1e6, scratch_product_bytes(choice) / 1e6);
  const ScratchCost cost = predicted_scratch_cost(problem, device, choice);
  return text + formatted(
                    "  predicted  %.1f us: dequantizing %.1f, matmul %.1f, rounding %.1f, "
                    "launches %.1f\n",
                    cost.total_us(), cost.dequantize_us, cost.matmul_us, cost.round_us,
                    cost.launch_us);
}

// Of m rows, if `problem` says how wide several can be copied: one has no next, and can be copied
// as wide as can be.
constexpr GemmProblem with_rows(GemmProblem problem, int m) {
  problem.m = m;
  if (m == 1) problem.copy_bytes = 16;
  return problem;
}

// What is predicted for other numbers of rows.
inline std::string describe_sweep(const GemmProblem& several, const Device& device,
                                  Measurements rows) {
  std::string text;
  for (const int m : {1, 16, 64, 128, 512, 4096}) {
    const GemmProblem problem = with_rows(several, m);
    if (!is_computable(problem)) continue;
    const GemmChoice choice = select_gemm(problem, device, rows);
    text += formatted("%d: %.1f  ", m, predicted_us(problem, device, choice));
  }
  return text + "us";
}

struct Explained {
  GemmProblem problem;   // copy_bytes: of several rows of A, also where m is 1
  int64_t k, n;          // without padding
  int64_t weight_bytes;  // codes, scales and zeros, as stored
};

inline std::string explain(const Explained& asked, const Device& device, std::string_view name,
                           Measurements rows = kMeasured) {
  const GemmProblem& several = asked.problem;
  const GemmProblem problem = with_rows(several, several.m);
  if (!is_computable(problem)) return "M x N has more tiles than a grid can count: refused\n";
  if (!is_allowed(problem, device)) {
    return formatted("PADMARLIN_KERNEL=%s: refused: ", family_name(*problem.forced)) +
           why_not_forced(problem, device) + "\n";
  }
  const GemmChoice choice = select_gemm(problem, device, rows);
  const double us = predicted_us(problem, device, choice);
  GemmProblem other = problem;
  other.batch_invariant = !problem.batch_invariant;
  other.forced.reset();  // batch_invariant leaves no choice
  const double other_us = predicted_us(other, device, select_gemm(other, device, rows));
  const double invariant_us = problem.batch_invariant ? us : other_us;
  const double free_us = problem.batch_invariant ? other_us : us;
  const double sustained = device.dram_gbps * cost::kDramEfficiency;

  std::string text =
      formatted("M %d, K %lld, N %lld, %d bits on %.*s: %d SMs, sm_%d, %d GB/s nominal\n",
                problem.m, static_cast<long long>(asked.k), static_cast<long long>(asked.n),
                problem.bits, static_cast<int>(name.size()), name.data(), device.num_sms,
                device.architecture, device.dram_gbps);
  text += formatted("  kernel     %s\n", describe_kernel(choice).c_str());
  text +=
      formatted("  chosen by  %s\n", describe_reason(choose_family(problem, device, rows)).c_str());
  text += formatted("  weights    %.1f MB; %.1f us at %.0f GB/s is the limit of memory\n",
                    asked.weight_bytes / 1e6, asked.weight_bytes / sustained / 1e3, sustained);
  text += choice.family == Family::kScratch ? describe_chunks(problem, device, choice)
                                            : describe_blocks(problem, device, choice);
  text += formatted("  by M       %s\n", describe_sweep(several, device, rows).c_str());
  text += formatted("  batch_invariant=True  %.1f us predicted, %.2f x\n", invariant_us,
                    invariant_us / free_us);
  const auto why_not = [&](Family family, const auto& reason) {
    return choice.family == family ? std::string("chosen") : reason(several, device, rows);
  };
  text += formatted("  wgmma      %s\n", why_not(Family::kWgmma, why_not_wgmma).c_str());
  text += formatted("  scratch    %s\n", why_not(Family::kScratch, why_not_scratch).c_str());
  return text + "Predictions rank the candidates; no time here is measured.\n";
}

}  // namespace padmarlin
