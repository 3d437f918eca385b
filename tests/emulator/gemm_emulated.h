// SPDX-License-Identifier: Apache-2.0
// From run-time arguments to the one instance of gemm_kernel that serves them: the emulator's
// counterpart of csrc/cuda/gemm_launch.cuh. Each source in gemm_instances/ compiles one
// (dtype, bits), so that they compile in parallel.
#pragma once

#include "cuda/gemm_kernel.cuh"
#include "runtime.h"

namespace padmarlin::emulator {

template <Dtype kDtype, int kBits, Dequant kDequant, bool kAsymmetric, int kMSteps>
Statistics launch_instance(const GemmArguments& args, const GemmChoice& choice,
                           const LaunchOptions& options) {
  return launch({"gemm_kernel", choice.partition.blocks, 1, choice.threads,
                 static_cast<size_t>(choice.shared_bytes)},
                options,
                [&] { gemm_kernel<kDtype, kBits, kDequant, kAsymmetric, kMSteps>(args, choice); });
}

template <Dtype kDtype, int kBits, Dequant kDequant, bool kAsymmetric>
Statistics launch_for_m(const GemmArguments& args, const GemmChoice& choice,
                        const LaunchOptions& options) {
  switch (choice.shape.m_steps) {
    case 1:
      return launch_instance<kDtype, kBits, kDequant, kAsymmetric, 1>(args, choice, options);
    case 2:
      return launch_instance<kDtype, kBits, kDequant, kAsymmetric, 2>(args, choice, options);
    case 4:
      return launch_instance<kDtype, kBits, kDequant, kAsymmetric, 4>(args, choice, options);
    case 8:
      return launch_instance<kDtype, kBits, kDequant, kAsymmetric, 8>(args, choice, options);
    default:
      throw std::invalid_argument("gemm: m_steps is " + std::to_string(choice.shape.m_steps) +
                                  ", expected 1, 2, 4 or 8");
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
