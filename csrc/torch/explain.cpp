// SPDX-License-Identifier: Apache-2.0
// What gemm would choose, as text for padmarlin/_extension.py. Needs no GPU and no torch.
#include "core/explain.h"

#include <string>
#include <string_view>

#include "core/devices.h"

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
  const Device* const device = named(gpu);
  if (device == nullptr) return nullptr;
  const GemmProblem problem = {.m = static_cast<int>(m),
                               .padded_n = static_cast<int>(padded_n),
                               .padded_k = static_cast<int>(padded_k),
                               .bits = static_cast<int>(bits),
                               .asymmetric = asymmetric,
                               .gathers = gathers,
                               .copy_bytes = static_cast<int>(copy_bytes),
                               .batch_invariant = batch_invariant};
  text = explain({problem, k, n, weight_bytes}, *device, gpu);
  return text.c_str();
}

// Their names, a blank between two.
extern "C" __attribute__((visibility("default"))) const char* padmarlin_named_devices() {
  static const std::string names = [] {
    std::string all;
    for (const auto& known : padmarlin::kNamedDevices) {
      all += (all.empty() ? "" : " ") + std::string(known.name);
    }
    return all;
  }();
  return names.c_str();
}
