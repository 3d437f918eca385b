// SPDX-License-Identifier: Apache-2.0
// One repack kernel, of template arguments PADMARLIN_INSTANCE.
#include "cuda/repack_kernel.cuh"
#include "instances.h"

namespace padmarlin::emulator {
namespace {

template <int kBits, Packing kPacking>
bool register_instance() {
  return register_repack({{kBits, kPacking}, repack_kernel<kBits, kPacking>});
}

[[maybe_unused]] const bool registered = register_instance<PADMARLIN_INSTANCE>();

}  // namespace
}  // namespace padmarlin::emulator
