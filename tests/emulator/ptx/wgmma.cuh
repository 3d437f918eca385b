// SPDX-License-Identifier: Apache-2.0
// Host twin of wgmma.
#pragma once

#include <ptx/qualifiers.cuh>
#include <ptx/shared_memory.cuh>

#include "core/dtype.h"

namespace padmarlin::ptx {

PADMARLIN_DEVICE void wgmma_fence() { emulator::wgmma_fence(); }

PADMARLIN_DEVICE void wgmma_commit_group() { emulator::wgmma_commit_group(); }

template <int kPending>
PADMARLIN_DEVICE void wgmma_wait_group() {
  emulator::wgmma_wait_group(kPending);
}

// As on the device: the emulator reads the descriptor's fields.
PADMARLIN_DEVICE uint64_t swizzled_descriptor(const uint8_t* rows, int chunk) {
  const uint64_t start = shared_address(rows) + 16 * chunk;
  constexpr uint64_t kStride = 8 * 128 / 16, kSwizzle128 = 1;
  return (start & 0x3ffff) >> 4 | uint64_t{1} << 16 | kStride << 32 | kSwizzle128 << 62;
}

template <Dtype kDtype, int kColumns>
PADMARLIN_DEVICE void wgmma_m64k16(float (&d)[kColumns / 2], const uint32_t (&a)[4], uint64_t b,
                                   bool accumulate) {
  emulator::wgmma(kDtype, kColumns, d, a, b, accumulate);
}

}  // namespace padmarlin::ptx
