// SPDX-License-Identifier: Apache-2.0
// PADMARLIN_KERNEL=mma, wgmma or scratch: one kernel family for every call of the process, to
// measure or to rule out others. PADMARLIN_SCRATCH=0: never the scratch, whatever was measured.
// Plain C++: no CUDA, no torch.
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
    {"auto", {}}, {"mma", Family::kMma}, {"wgmma", Family::kWgmma}, {"scratch", Family::kScratch}};
constexpr char kKernelRequestNames[] = "auto, mma, wgmma or scratch";

// Null: there is no such request. An empty name asks for nothing.
constexpr const KernelRequest* find_kernel_request(std::string_view name) {
  if (name.empty()) return &kKernelRequests[0];
  for (const KernelRequest& known : kKernelRequests) {
    if (known.name == name) return &known;
  }
  return nullptr;
}

inline const char* variable(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}
inline const char* kernel_variable() { return variable("PADMARLIN_KERNEL"); }
inline const char* scratch_variable() { return variable("PADMARLIN_SCRATCH"); }

// The process's request: the environment's as of the first call, until padmarlin_force_kernel
// stores another. Null if the variable names none.
inline std::atomic<const KernelRequest*>& kernel_request() {
  static std::atomic<const KernelRequest*> request{find_kernel_request(kernel_variable())};
  return request;
}

// What PADMARLIN_SCRATCH says of the scratch; null if it says neither yes nor no.
constexpr std::optional<bool> find_scratch_permission(std::string_view value) {
  if (value.empty() || value == "1") return true;
  if (value == "0") return false;
  return {};
}

// The environment's as of the first call.
inline std::optional<bool> scratch_permission() {
  static const std::optional<bool> permission = find_scratch_permission(scratch_variable());
  return permission;
}

}  // namespace padmarlin
