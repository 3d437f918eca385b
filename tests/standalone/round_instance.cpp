// SPDX-License-Identifier: Apache-2.0
// One rounding kernel, of template arguments PADMARLIN_INSTANCE.
#include "cuda/round_kernel.cuh"
#include "instances.h"

namespace padmarlin::emulator {
namespace {

template <Dtype kDtype>
bool register_instance() {
  return register_round({{kDtype}, round_kernel<kDtype>});
}

[[maybe_unused]] const bool registered = register_instance<PADMARLIN_INSTANCE>();

}  // namespace
}  // namespace padmarlin::emulator
