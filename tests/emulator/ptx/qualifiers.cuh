// SPDX-License-Identifier: Apache-2.0
// Host twin: what CUDA's own headers would give a kernel, as far as the kernels use it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime.h"

#define __global__
#define __launch_bounds__(...)

// Inlined without exception, as on the device: the emulator tells one shared-memory access of a
// kernel from another by the return address.
#define PADMARLIN_DEVICE __attribute__((always_inline)) inline

struct alignas(8) uint2 {
  uint32_t x, y;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};

inline uint2 make_uint2(uint32_t x, uint32_t y) { return {x, y}; }
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
