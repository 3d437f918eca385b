// SPDX-License-Identifier: Apache-2.0
// Shared memory: the dynamic buffer, 16-byte accesses, ldmatrix.
#pragma once

#include <ptx/qualifiers.cuh>

namespace padmarlin::ptx {

// The block's dynamic shared memory, 1024-byte aligned.
PADMARLIN_DEVICE uint8_t* dynamic_shared() {
  extern __shared__ __align__(1024) uint8_t padmarlin_dynamic_shared[];
  return padmarlin_dynamic_shared;
}

PADMARLIN_DEVICE uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Back from an address to its pointer.
PADMARLIN_DEVICE uint8_t* shared_pointer(uint32_t address) {
  return static_cast<uint8_t*>(__cvta_shared_to_generic(address));
}

// ld.shared.v4: `pointer` 16-byte aligned. Quarter warps (8 lanes) are served together.
PADMARLIN_DEVICE uint4 ld_shared_v4(const void* pointer) {
  uint4 value;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "r"(shared_address(pointer))
               : "memory");
  return value;
}

// ld.shared.v2: `pointer` 8-byte aligned. Half warps (16 lanes) are served together.
PADMARLIN_DEVICE uint2 ld_shared_v2(const void* pointer) {
  uint2 value;
  asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];"
               : "=r"(value.x), "=r"(value.y)
               : "r"(shared_address(pointer))
               : "memory");
  return value;
}

// st.shared.v4: `pointer` 16-byte aligned.
PADMARLIN_DEVICE void st_shared_v4(void* pointer, uint4 value) {
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(shared_address(pointer)),
               "r"(value.x), "r"(value.y), "r"(value.z), "r"(value.w)
               : "memory");
}

// The same of four floats.
PADMARLIN_DEVICE void ld_shared_v4_f32(float (&value)[4], const void* pointer) {
  asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(value[0]), "=f"(value[1]), "=f"(value[2]), "=f"(value[3])
               : "r"(shared_address(pointer))
               : "memory");
}
PADMARLIN_DEVICE void st_shared_v4_f32(void* pointer, const float (&value)[4]) {
  asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(shared_address(pointer)),
               "f"(value[0]), "f"(value[1]), "f"(value[2]), "f"(value[3])
               : "memory");
}

// ld.shared.v2: `pointer` 8-byte aligned. Half warps (16 lanes) are served together.
PADMARLIN_DEVICE float2 ld_shared_v2_f32(const void* pointer) {
  float2 value;
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];"
               : "=f"(value.x), "=f"(value.y)
               : "r"(shared_address(pointer))
               : "memory");
  return value;
}

// st.shared: `pointer` 4-byte aligned.
PADMARLIN_DEVICE void st_shared(void* pointer, uint32_t value) {
  asm volatile("st.shared.u32 [%0], %1;" ::"r"(shared_address(pointer)), "r"(value) : "memory");
}
PADMARLIN_DEVICE void st_shared_f32(void* pointer, float value) {
  asm volatile("st.shared.f32 [%0], %1;" ::"r"(shared_address(pointer)), "f"(value) : "memory");
}

// ldmatrix .x4: lane i passes the address of row i % 8 of 8x8 matrix i / 8 (16 bytes, aligned);
// matrix j lands in fragment[j]: lane 4g + t gets elements (g, 2t) and (g, 2t + 1).
PADMARLIN_DEVICE void ldmatrix_x4(uint32_t (&fragment)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
               : "r"(shared_address(row))
               : "memory");
}

// stmatrix .x4.trans, sm_90: matrix j is what lanes 4g + t hold in fragment[j], elements (g, 2t)
// and (g, 2t + 1). Its *columns* are stored as rows of 16 bytes: column i % 8 of matrix i / 8 where
// lane i says.
PADMARLIN_DEVICE void stmatrix_x4_trans(void* row, const uint32_t (&fragment)[4]) {
#if PADMARLIN_HAS_SM90
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(
                   shared_address(row)),
               "r"(fragment[0]), "r"(fragment[1]), "r"(fragment[2]), "r"(fragment[3])
               : "memory");
#else
  __trap();
#endif
}

}  // namespace padmarlin::ptx
