// SPDX-License-Identifier: Apache-2.0
// From run-time arguments to the one instance of gemm_kernel that serves them: the emulator's
// counterpart of csrc/cuda/gemm_launch.cuh. Each source in gemm_instances/ compiles one
// (dtype, bits), so that they compile in parallel.
#pragma once

#include "cuda/gemm_kernel.cuh"
#include "runtime.h"

namespace padmarlin::emulator {

inline void add(Statistics& total, const Statistics& statistics) {
  for (const auto& [instruction, count] : statistics) {
    total[instruction].instructions += count.instructions;
    total[instruction].extra_wavefronts += count.extra_wavefronts;
  }
}

template <Dtype kDtype, int kBits, Dequant kDequant, bool kAsymmetric, int kMSlices>
Statistics launch_instance(const GemmArguments& args, int splits, const LaunchOptions& options) {
  Statistics statistics = launch(
      {"gemm_kernel", gemm_blocks(args.m, args.padded_n, kMSlices), splits, kBlockThreads,
       Stage<kBits, kMSlices, kAsymmetric>::kSharedBytes},
      options, [&] { gemm_kernel<kDtype, kBits, kDequant, kAsymmetric, kMSlices>(args, splits); });
  if (splits > 1) {
    const int blocks = static_cast<int>(reduce_blocks(args.m, args.n));
    add(statistics, launch({"reduce_kernel", blocks, 1, kReduceThreads, 0}, options,
                           [&] { reduce_kernel<kDtype>(args, splits); }));
  }
  return statistics;
}

template <Dtype kDtype, int kBits, Dequant kDequant, bool kAsymmetric>
Statistics launch_for_m(const GemmArguments& args, const GemmChoice& choice,
                        const LaunchOptions& options) {
  switch (choice.m_slices) {
    case 1:
      return launch_instance<kDtype, kBits, kDequant, kAsymmetric, 1>(args, choice.splits, options);
    case 2:
      return launch_instance<kDtype, kBits, kDequant, kAsymmetric, 2>(args, choice.splits, options);
    case 4:
      return launch_instance<kDtype, kBits, kDequant, kAsymmetric, 4>(args, choice.splits, options);
    default:
      throw std::invalid_argument("gemm: m_slices is " + std::to_string(choice.m_slices) +
                                  ", expected 1, 2 or 4");
  }
}

template <Dtype kDtype, int kBits>
Statistics launch_for_dequant(const GemmArguments& args, const GemmChoice& choice,
                              const LaunchOptions& options) {
  const auto launch_with = [&]<Dequant kDequant>() {
    return args.zeros ? launch_for_m<kDtype, kBits, kDequant, true>(args, choice, options)
                      : launch_for_m<kDtype, kBits, kDequant, false>(args, choice, options);
  };
  if constexpr (kBits == 4) {
    if (args.dequant == Dequant::kTwoField) {
      return launch_with.template operator()<Dequant::kTwoField>();
    }
  }
  if (args.dequant == Dequant::kOneField) {
    return launch_with.template operator()<Dequant::kOneField>();
  }
  if (args.dequant == Dequant::kWide && args.zeros) {
    return launch_for_m<kDtype, kBits, Dequant::kWide, true>(args, choice, options);
  }
  throw std::invalid_argument(
      "gemm: no kernel for dequant " + std::to_string(static_cast<int>(args.dequant)) + " at " +
      std::to_string(kBits) + " bits" + (args.zeros ? "" : " without zeros"));
}

Statistics gemm_half_w4(const GemmArguments&, const GemmChoice&, const LaunchOptions&);
Statistics gemm_half_w8(const GemmArguments&, const GemmChoice&, const LaunchOptions&);
Statistics gemm_bfloat16_w4(const GemmArguments&, const GemmChoice&, const LaunchOptions&);
Statistics gemm_bfloat16_w8(const GemmArguments&, const GemmChoice&, const LaunchOptions&);

}  // namespace padmarlin::emulator
