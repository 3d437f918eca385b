// SPDX-License-Identifier: Apache-2.0
// One warp, one instruction: kernels that show a primitive's fragment maps to the tests. They run
// on the emulator and on the device.
#pragma once

#include <ptx/barrier.cuh>
#include <ptx/mma.cuh>
#include <ptx/shared_memory.cuh>
#include <ptx/special_registers.cuh>

#include "core/layout.h"

namespace padmarlin::probes {

// d = a * b, registers of lane i at a + 4i, b + 2i, d + 4i.
template <Dtype kDtype>
__global__ void mma_probe(const uint32_t* a, const uint32_t* b, float* d) {
  const int lane = ptx::tid_x();
  uint32_t a_fragment[4], b_fragment[2];
  float d_fragment[4] = {0, 0, 0, 0};
  for (int i = 0; i < 4; ++i) a_fragment[i] = a[4 * lane + i];
  for (int i = 0; i < 2; ++i) b_fragment[i] = b[2 * lane + i];
  ptx::mma_m16n8k16<kDtype>(d_fragment, a_fragment, b_fragment);
  for (int i = 0; i < 4; ++i) d[4 * lane + i] = d_fragment[i];
}

constexpr int kMaxRowPitch = 128;
constexpr int kLdmatrixSharedBytes = kWarp * kMaxRowPitch;

// Row i of `matrices` (32 rows of 16 bytes, four 8 x 8 matrices) goes to shared memory at
// row_pitch * i; lane i's fragment to fragments + 4i.
inline __global__ void ldmatrix_probe(const uint4* matrices, int row_pitch, uint32_t* fragments) {
  const int lane = ptx::tid_x();
  uint8_t* const row = ptx::dynamic_shared() + row_pitch * lane;
  ptx::st_shared_v4(row, matrices[lane]);
  ptx::bar_sync();
  uint32_t fragment[4];
  ptx::ldmatrix_x4(fragment, row);
  for (int i = 0; i < 4; ++i) fragments[4 * lane + i] = fragment[i];
}

constexpr int kExchangeThreads = 2 * kWarp;
constexpr int kExchangeBlockThreads = 3 * kWarp;  // the third warp does not come to the barrier
constexpr int kExchangeSharedBytes = kExchangeThreads * 16;

// Two warps exchange floats through shared memory and a barrier of their own. Thread i of the
// first gets, at out + 6i, what thread i ^ 32 holds at in + 4 * (i ^ 32): all four by a vector,
// then words 1 and 2 as they went through stores of one word each.
inline __global__ void exchange_probe(const float* in, float* out) {
  const int thread = ptx::tid_x(), partner = thread ^ kWarp;
  if (thread >= kExchangeThreads) return;
  uint8_t* const shared = ptx::dynamic_shared();
  float own[4], other[4];
  for (int i = 0; i < 4; ++i) own[i] = in[4 * thread + i];
  ptx::st_shared_v4_f32(shared + 16 * thread, own);
  ptx::bar_sync(1, kExchangeThreads);
  ptx::ld_shared_v4_f32(other, shared + 16 * partner);
  for (int i = 0; i < 4; ++i) out[6 * thread + i] = other[i];
  ptx::bar_sync(1, kExchangeThreads);  // they have been read; the same place takes two words
  uint32_t bits;
  __builtin_memcpy(&bits, &own[2], sizeof bits);
  ptx::st_shared_f32(shared + 8 * thread, own[1]);
  ptx::st_shared(shared + 8 * thread + 4, bits);
  ptx::bar_sync(1, kExchangeThreads);
  const float2 pair = ptx::ld_shared_v2_f32(shared + 8 * partner);
  out[6 * thread + 4] = pair.x;
  out[6 * thread + 5] = pair.y;
}

}  // namespace padmarlin::probes
