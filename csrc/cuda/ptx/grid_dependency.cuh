// SPDX-License-Identifier: Apache-2.0
// Programmatic dependent launch and prefetches into L2 (sm_90 and up; nothing on older ones, which
// start a kernel when the one before has ended).
#pragma once

#include <ptx/qualifiers.cuh>

namespace padmarlin::ptx {

// griddepcontrol.wait: until the kernels that this one may overlap have ended and what they wrote
// is visible. Returns at once in a kernel launched without the attribute.
PADMARLIN_DEVICE void griddepcontrol_wait() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// griddepcontrol.launch_dependents: the next kernel may start once all blocks have said so.
PADMARLIN_DEVICE void griddepcontrol_launch_dependents() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

}  // namespace padmarlin::ptx
