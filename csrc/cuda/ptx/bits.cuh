// SPDX-License-Identifier: Apache-2.0
// 32-bit integer instructions that C++ has no operator for.
#pragma once

#include <ptx/qualifiers.cuh>

namespace padmarlin::ptx {

// prmt.b32: byte i of the result is byte (selector >> 4i & 7) of {b, a} (a holds bytes 0..3).
PADMARLIN_DEVICE uint32_t prmt(uint32_t a, uint32_t b, uint32_t selector) {
  return __byte_perm(a, b, selector);
}

// `value`, of which the compiler knows nothing: what is computed from it is computed here, not kept
// in registers from elsewhere.
PADMARLIN_DEVICE int opaque(int value) {
  asm volatile("" : "+r"(value));
  return value;
}

// shfl.sync.idx: `value` of lane `source` % 32; all lanes of the warp must come.
PADMARLIN_DEVICE int shfl(int value, int source) { return __shfl_sync(0xffffffffu, value, source); }

}  // namespace padmarlin::ptx
