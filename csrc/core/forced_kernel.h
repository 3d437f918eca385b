// SPDX-License-Identifier: Apache-2.0
// PADMARLIN_KERNEL=mma or wgmma: one kernel family for every call of the process, to measure or to
// rule out one. Plain C++: no CUDA, no torch.
#pragma once

#include <atomic>
#include <cstdlib>
#include <optional>
#include <string_view>

#include "core/gemm_cost.h"

namespace padmarlin {

struct KernelRequest {
  std::string_view name;
  std::optional<Family> family;  // none: the dispatcher chooses
};

constexpr KernelRequest kKernelRequests[] = {
    {"auto", {}}, {"mma", Family::kMma}, {"wgmma", Family::kWgmma}};
constexpr char kKernelRequestNames[] = "auto, mma or wgmma";

// Null: there is no such request. An empty name asks for nothing.
constexpr const KernelRequest* find_kernel_request(std::string_view name) {
  if (name.empty()) return &kKernelRequests[0];
  for (const KernelRequest& known : kKernelRequests) {
    if (known.name == name) return &known;
  }
  return nullptr;
}

inline const char* kernel_variable() {
  const char* const value = std::getenv("PADMARLIN_KERNEL");
  return value == nullptr ? "" : value;
}

// The process's request: the environment's as of the first call, until padmarlin_force_kernel
// stores another. Null if the variable names none.
inline std::atomic<const KernelRequest*>& kernel_request() {
  static std::atomic<const KernelRequest*> request{find_kernel_request(kernel_variable())};
  return request;
}

}  // namespace padmarlin
