// SPDX-License-Identifier: Apache-2.0
// How a process that measures changes PADMARLIN_KERNEL between calls (padmarlin/_extension.py).
#include "core/forced_kernel.h"

// "auto", "mma", "wgmma" or "scratch", for all threads' next calls; false if it is another name.
extern "C" __attribute__((visibility("default"))) bool padmarlin_force_kernel(const char* name) {
  const padmarlin::KernelRequest* const request = padmarlin::find_kernel_request(name);
  if (request == nullptr) return false;
  padmarlin::kernel_request().store(request, std::memory_order_relaxed);
  return true;
}
