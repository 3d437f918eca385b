// SPDX-License-Identifier: Apache-2.0
// Host twin of the shared-memory instructions.
#pragma once

#include <cstring>
#include <ptx/qualifiers.cuh>

namespace padmarlin::ptx {

PADMARLIN_DEVICE uint8_t* dynamic_shared() { return emulator::dynamic_shared(); }

PADMARLIN_DEVICE uint32_t shared_address(const void* pointer) {
  return emulator::shared_address(pointer);
}

PADMARLIN_DEVICE uint8_t* shared_pointer(uint32_t address) { return dynamic_shared() + address; }

PADMARLIN_DEVICE uint4 ld_shared_v4(const void* pointer) {
  emulator::access_shared("ld_shared_v4", pointer, sizeof(uint4));
  uint4 value;
  std::memcpy(&value, pointer, sizeof value);
  return value;
}

PADMARLIN_DEVICE uint2 ld_shared_v2(const void* pointer) {
  emulator::access_shared("ld_shared_v2", pointer, sizeof(uint2));
  uint2 value;
  std::memcpy(&value, pointer, sizeof value);
  return value;
}

PADMARLIN_DEVICE void st_shared_v4(void* pointer, uint4 value) {
  emulator::access_shared("st_shared_v4", pointer, sizeof value);
  std::memcpy(pointer, &value, sizeof value);
}

PADMARLIN_DEVICE void ld_shared_v4_f32(float (&value)[4], const void* pointer) {
  emulator::access_shared("ld_shared_v4_f32", pointer, sizeof value);
  std::memcpy(value, pointer, sizeof value);
}

PADMARLIN_DEVICE void st_shared_v4_f32(void* pointer, const float (&value)[4]) {
  emulator::access_shared("st_shared_v4_f32", pointer, sizeof value);
  std::memcpy(pointer, value, sizeof value);
}

PADMARLIN_DEVICE float2 ld_shared_v2_f32(const void* pointer) {
  emulator::access_shared("ld_shared_v2_f32", pointer, sizeof(float2));
  float2 value;
  std::memcpy(&value, pointer, sizeof value);
  return value;
}

PADMARLIN_DEVICE void st_shared(void* pointer, uint32_t value) {
  emulator::access_shared("st_shared", pointer, sizeof value);
  std::memcpy(pointer, &value, sizeof value);
}

PADMARLIN_DEVICE void st_shared_f32(void* pointer, float value) {
  emulator::access_shared("st_shared_f32", pointer, sizeof value);
  std::memcpy(pointer, &value, sizeof value);
}

PADMARLIN_DEVICE void ldmatrix_x4(uint32_t (&fragment)[4], const void* row) {
  emulator::ldmatrix_x4(fragment, row);
}

PADMARLIN_DEVICE void stmatrix_x4_trans(void* row, const uint32_t (&fragment)[4]) {
  emulator::stmatrix_x4_trans(row, fragment);
}

}  // namespace padmarlin::ptx
