// SPDX-License-Identifier: Apache-2.0
// From run-time arguments to the one instance of wgmma_kernel that serves them: the emulator's
// counterpart of csrc/cuda/wgmma/instances.cuh. Each source in wgmma_instances/ compiles one
// (dtype, bits), so that they compile in parallel.
#pragma once

#include <stdexcept>
#include <string>

#include "cuda/wgmma/kernel.cuh"
#include "runtime.h"

namespace padmarlin::emulator {

template <Dtype kDtype, int kBits, Dequant kDequant, bool kAsymmetric, int kRows>
Statistics launch_wgmma_instance(const GemmArguments& args, const GemmChoice& choice,
                                 const TensorMap& map, const LaunchOptions& options) {
  return launch(
      {"wgmma_kernel", choice.partition.blocks, 1, choice.threads,
       static_cast<size_t>(choice.shared_bytes)},
      options,
      [&] { wgmma::wgmma_kernel<kDtype, kBits, kDequant, kAsymmetric, kRows>(args, choice, map); });
}

template <Dtype kDtype, int kBits, Dequant kDequant, bool kAsymmetric>
Statistics launch_wgmma_for_rows(const GemmArguments& args, const GemmChoice& choice,
                                 const TensorMap& map, const LaunchOptions& options) {
  Statistics statistics;
  const bool found = wgmma::with_block_rows(choice.tile_m, [&]<int kRows>() {
    statistics = launch_wgmma_instance<kDtype, kBits, kDequant, kAsymmetric, kRows>(args, choice,
                                                                                    map, options);
  });
  if (!found) {
    throw std::invalid_argument("gemm: tile_m is " + std::to_string(choice.tile_m) +
                                ", expected a number of kBlockRows in core/wgmma_block.h");
  }
  return statistics;
}

template <Dtype kDtype, int kBits>
Statistics launch_wgmma_for_dequant(const GemmArguments& args, const GemmChoice& choice,
                                    const TensorMap& map, const LaunchOptions& options) {
  const auto with = [&]<Dequant kDequant>() {
    return args.zeros
               ? launch_wgmma_for_rows<kDtype, kBits, kDequant, true>(args, choice, map, options)
               : launch_wgmma_for_rows<kDtype, kBits, kDequant, false>(args, choice, map, options);
  };
  if constexpr (kBits == 4) {
    if (args.dequant == Dequant::kTwoField) return with.template operator()<Dequant::kTwoField>();
  }
  if (args.dequant == Dequant::kOneField) return with.template operator()<Dequant::kOneField>();
  if (args.dequant == Dequant::kWide && args.zeros) {
    return launch_wgmma_for_rows<kDtype, kBits, Dequant::kWide, true>(args, choice, map, options);
  }
  throw std::invalid_argument(
      "gemm: no kernel for dequant " + std::to_string(static_cast<int>(args.dequant)) + " at " +
      std::to_string(kBits) + " bits" + (args.zeros ? "" : " without zeros"));
}

Statistics wgmma_half_w4(const GemmArguments&, const GemmChoice&, const TensorMap&,
                         const LaunchOptions&);
Statistics wgmma_half_w8(const GemmArguments&, const GemmChoice&, const TensorMap&,
                         const LaunchOptions&);
Statistics wgmma_bfloat16_w4(const GemmArguments&, const GemmChoice&, const TensorMap&,
                             const LaunchOptions&);
Statistics wgmma_bfloat16_w8(const GemmArguments&, const GemmChoice&, const TensorMap&,
                             const LaunchOptions&);

}  // namespace padmarlin::emulator
