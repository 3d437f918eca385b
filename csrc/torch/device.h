// SPDX-License-Identifier: Apache-2.0
// The CUDA device behind a tensor: current while a call runs, its stream and its properties.
#pragma once

#include <torch/csrc/stable/accelerator.h>

#include <string>

#include "core/gemm_cost.h"

namespace padmarlin {

// Makes a device current for torch and for this library's own CUDA runtime, and finds the stream
// that torch's caller chose. Refuses a GPU that the kernels cannot run on.
class CurrentDevice {
 public:
  CurrentDevice(const char* function, int index);

  void* stream() const;  // a cudaStream_t
  Device properties() const;
  // PADMARLIN_PDL=1, on sm_90 and up: a kernel may start before the one in front has ended.
  bool overlaps_kernels() const;

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  const char* function_;
  int index_;
};

// Throws what a launch returned, a cudaError_t. `problem` describes the call: "m = 1, n = 64".
[[noreturn]] void refuse_launch(const char* function, int status, const std::string& problem);

// Throws if a launch returned anything but cudaSuccess. Only then is `describe()` called: text
// costs as much as a launch.
template <typename Describe>
void check_launch(const char* function, int status, const Describe& describe) {
  constexpr int kSuccess = 0;  // cudaSuccess
  if (status != kSuccess) refuse_launch(function, status, describe());
}

}  // namespace padmarlin
