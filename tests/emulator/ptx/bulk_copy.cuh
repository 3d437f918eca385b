// SPDX-License-Identifier: Apache-2.0
// Host twin of the bulk copies.
#pragma once

#include <ptx/qualifiers.cuh>
#include <ptx/shared_memory.cuh>

namespace padmarlin::ptx {

// There is no L2 here: a policy is any value.
PADMARLIN_DEVICE void bulk_copy(void* shared, const void* global, int bytes, uint64_t* barrier,
                                uint64_t policy) {
  static_cast<void>(policy);
  emulator::bulk_copy(shared, global, bytes, barrier);
}

PADMARLIN_DEVICE void bulk_copy(void* shared, const void* global, int bytes, uint64_t* barrier) {
  emulator::bulk_copy(shared, global, bytes, barrier);
}

PADMARLIN_DEVICE bool elect_sync() { return emulator::elect_sync(); }

}  // namespace padmarlin::ptx
