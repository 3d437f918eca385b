// SPDX-License-Identifier: Apache-2.0
// One kernel that adds partial tiles, of template arguments PADMARLIN_INSTANCE.
#include "../probes/fixup.cuh"
#include "instances.h"

namespace padmarlin::emulator {
namespace {

template <int kThreads, int kVectors>
bool register_instance() {
  return register_fixup({{kThreads, kVectors}, probes::fixup_probe<kThreads, kVectors>});
}

[[maybe_unused]] const bool registered = register_instance<PADMARLIN_INSTANCE>();

}  // namespace
}  // namespace padmarlin::emulator
