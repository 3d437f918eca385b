// SPDX-License-Identifier: Apache-2.0
// Host twin of cp.async.
#pragma once

#include <ptx/qualifiers.cuh>
#include <ptx/shared_memory.cuh>

namespace padmarlin::ptx {

template <int kBytes>
PADMARLIN_DEVICE void cp_async(void* shared, const void* global, int source_bytes) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16, "cp.async copies 4, 8 or 16 bytes");
  emulator::cp_async(shared, global, kBytes, source_bytes);
}

PADMARLIN_DEVICE void cp_async_if(bool present, void* shared, const void* global) {
  if (present) emulator::cp_async(shared, global, 16, 16);
}

// There is no L2 here: a policy is any value.
PADMARLIN_DEVICE uint64_t createpolicy_evict_first() { return 0; }
PADMARLIN_DEVICE uint64_t createpolicy_evict_normal() { return 0; }

PADMARLIN_DEVICE void cp_async_hint(void* shared, const void* global, uint64_t policy) {
  static_cast<void>(policy);
  emulator::cp_async(shared, global, 16, 16);
}

PADMARLIN_DEVICE void cp_async_commit_group() { emulator::cp_async_commit_group(); }

template <int kPending>
PADMARLIN_DEVICE void cp_async_wait_group() {
  emulator::cp_async_wait_group(kPending);
}

}  // namespace padmarlin::ptx
