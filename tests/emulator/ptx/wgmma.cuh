// SPDX-License-Identifier: Apache-2.0
// Twins ahead of their device halves: what a wgmma kernel needs beyond csrc/cuda/ptx as it is, so
// that the format can be proven for that kernel before it exists.
#pragma once

#include <cstring>
#include <ptx/mma.cuh>
#include <ptx/qualifiers.cuh>

#include "cuda/stage.cuh"

namespace padmarlin::ptx {

// ld.shared.v2: `pointer` 8-byte aligned. Half warps (16 lanes) are served together.
PADMARLIN_DEVICE uint2 ld_shared_v2(const void* pointer) {
  emulator::access_shared("ld_shared_v2", pointer, sizeof(uint2));
  uint2 value;
  std::memcpy(&value, pointer, sizeof value);
  return value;
}

// wgmma m64n8k16, A in registers: d (64 x 8, fp32) += a (64 x 16) * b (16 x 8). Warp w of the
// warpgroup holds rows 16w..16w + 15 of a and d, in the maps of mma.m16n8k16 (PTX ISA, "Register
// Fragments for wgmma.mma_async.m64k16"), so its part is that product. b comes from shared memory:
// columns as rows of 128 bytes with the 128-byte swizzle, k from 16-byte chunk `chunk` on.
// The device's runs in the background; this one is done on return.
template <Dtype kDtype>
PADMARLIN_DEVICE void wgmma_m64n8k16(float (&d)[4], const uint32_t (&a)[4], const uint8_t* shared,
                                     int chunk) {
  const int lane = emulator::tid_x() % kWarp, g = lane / 4, t = lane % 4;
  uint32_t b[2];
  for (int i = 0; i < 2; ++i) {
    std::memcpy(&b[i], shared + activation_offset(g, chunk + i) + 4 * t, sizeof b[i]);
  }
  mma_m16n8k16<kDtype>(d, a, b);
}

}  // namespace padmarlin::ptx
