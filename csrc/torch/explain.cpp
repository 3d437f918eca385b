// SPDX-License-Identifier: Apache-2.0
// What gemm would choose, as text for padmarlin/_extension.py. Needs no GPU and no torch.
#include "core/explain.h"

#include <optional>
#include <string>
#include <string_view>

#include "core/devices.h"
#include "core/forced_kernel.h"
#include "cuda/wgmma/launch.h"

namespace padmarlin {
namespace {

const Device* named(std::string_view name) {
  for (const NamedDevice& known : kNamedDevices) {
    if (known.name == name) return &known.device;
  }
  return nullptr;
}

}  // namespace
}  // namespace padmarlin

// A plain C symbol, as padmarlin_build_info is. The text, or null if no GPU is called `gpu`. The
// caller has checked the numbers; the text lives until this thread calls again.
extern "C" __attribute__((visibility("default"))) const char* padmarlin_explain(
    const char* gpu, int64_t m, int64_t k, int64_t n, int64_t padded_k, int64_t padded_n,
    int64_t bits, int64_t weight_bytes, bool asymmetric, bool gathers, int64_t copy_bytes,
    bool batch_invariant) {
  using namespace padmarlin;  // NOLINT(google-build-using-namespace): this function is C
  static thread_local std::string text;
  const Device* const found = named(gpu);
  if (found == nullptr) return nullptr;
  Device device = *found;
  device.wgmma = wgmma::is_built();
  const KernelRequest* const request = kernel_request();
  if (request == nullptr) {
    text = formatted("PADMARLIN_KERNEL is '%.40s', expected %s: gemm refuses every call\n",
                     kernel_variable(), kKernelRequestNames);
    return text.c_str();
  }
  const std::optional<bool> scratch = scratch_permission();
  if (!scratch) {
    text = formatted("PADMARLIN_SCRATCH is '%.40s', expected 0 or 1: gemm refuses every call\n",
                     scratch_variable());
    return text.c_str();
  }
  const GemmProblem problem = {.m = static_cast<int>(m),
                               .padded_n = static_cast<int>(padded_n),
                               .padded_k = static_cast<int>(padded_k),
                               .bits = static_cast<int>(bits),
                               .asymmetric = asymmetric,
                               .gathers = gathers,
                               .copy_bytes = static_cast<int>(copy_bytes),
                               .batch_invariant = batch_invariant,
                               .forced = request->family,
                               .forbids_scratch = !*scratch};
  text = explain({problem, k, n, weight_bytes}, device, gpu);
  return text.c_str();
}

// Their names, a blank between two.
extern "C" __attribute__((visibility("default"))) const char* padmarlin_named_devices() {
  static const std::string names = [] {
    std::string all;
    for (const auto& known : padmarlin::kNamedDevices) {
      if (!all.empty()) all += ' ';
      all += known.name;
    }
    return all;
  }();
  return names.c_str();
}
