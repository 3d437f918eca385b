// SPDX-License-Identifier: Apache-2.0
// Global memory that blocks share: atomics with a memory order, loads past L1.
#pragma once

#include <ptx/qualifiers.cuh>

namespace padmarlin::ptx {

// The .sem of an atomic at .gpu scope (PTX ISA, "Memory Consistency Model"). A release makes what
// happened before it (a barrier of the block included) visible to whoever acquires what it stored.
enum class Order { kRelaxed, kAcquire, kRelease, kAcquireRelease };

// atom.inc: stores (old >= bound ? 0 : old + 1), returns old. bound + 1 calls leave it as it was.
template <Order kOrder>
PADMARLIN_DEVICE uint32_t atom_inc(uint32_t* address, uint32_t bound) {
  uint32_t old;
  if constexpr (kOrder == Order::kRelaxed) {
    asm volatile("atom.relaxed.gpu.global.inc.u32 %0, [%1], %2;"
                 : "=r"(old)
                 : "l"(address), "r"(bound)
                 : "memory");
  } else if constexpr (kOrder == Order::kAcquire) {
    asm volatile("atom.acquire.gpu.global.inc.u32 %0, [%1], %2;"
                 : "=r"(old)
                 : "l"(address), "r"(bound)
                 : "memory");
  } else if constexpr (kOrder == Order::kRelease) {
    asm volatile("atom.release.gpu.global.inc.u32 %0, [%1], %2;"
                 : "=r"(old)
                 : "l"(address), "r"(bound)
                 : "memory");
  } else {
    asm volatile("atom.acq_rel.gpu.global.inc.u32 %0, [%1], %2;"
                 : "=r"(old)
                 : "l"(address), "r"(bound)
                 : "memory");
  }
  return old;
}

// ld.global.cg: from L2, where other blocks' stores are. `pointer` 16-byte aligned.
PADMARLIN_DEVICE float4 ld_global_cg_v4(const float* pointer) {
  float4 value;
  asm volatile("ld.global.cg.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(value.x), "=f"(value.y), "=f"(value.z), "=f"(value.w)
               : "l"(pointer)
               : "memory");
  return value;
}

// Asks for the line of `global` in L2. A hint: it reads nothing that a later store could make
// stale, since stores go to L2 as well.
PADMARLIN_DEVICE void prefetch_l2(const void* global) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(global) : "memory");
}

}  // namespace padmarlin::ptx
