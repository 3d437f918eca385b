// SPDX-License-Identifier: Apache-2.0
// Device halves of tests/emulator/ptx/wgmma.cuh, ahead of the kernel that will need them: they show
// that the format of core/layout.h and its twin are what the hardware reads.
#pragma once

#include <ptx/mma.cuh>
#include <ptx/shared_memory.cuh>

#include "cuda/stage.cuh"

// wgmma exists on sm_90a alone.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define PADMARLIN_HAS_WGMMA 1
#else
#define PADMARLIN_HAS_WGMMA 0
#endif

namespace padmarlin::ptx {

// ld.shared.v2: `pointer` 8-byte aligned. Half warps (16 lanes) are served together.
PADMARLIN_DEVICE uint2 ld_shared_v2(const void* pointer) {
  uint2 value;
  asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];"
               : "=r"(value.x), "=r"(value.y)
               : "r"(shared_address(pointer))
               : "memory");
  return value;
}

// PTX ISA, "Matrix Descriptor Format": addresses and offsets in units of 16 bytes. With the
// 128-byte swizzle (1 in bits 62..63) eight columns of 64 k take 8 * 128 bytes, the stride between
// groups of eight columns; the leading offset is not used. `columns` is 1024-byte aligned; the
// sixteen k from 16-byte chunk `chunk` on begin that much later.
PADMARLIN_DEVICE uint64_t swizzled_descriptor(const uint8_t* columns, int chunk) {
  const uint64_t start = shared_address(columns) + 16 * chunk;
  constexpr uint64_t kStride = 8 * 128 / 16, kSwizzle128 = 1;
  return (start & 0x3ffff) >> 4 | uint64_t{1} << 16 | kStride << 32 | kSwizzle128 << 62;
}

// d (64 x 8, fp32) += a (64 x 16) * b (16 x 8), and waits. The fence makes what the block wrote to
// shared memory, and a barrier has ordered before this call, visible to wgmma (the async proxy).
template <Dtype kDtype>
PADMARLIN_DEVICE void wgmma_m64n8k16(float (&d)[4], const uint32_t (&a)[4], const uint8_t* shared,
                                     int chunk) {
#if PADMARLIN_HAS_WGMMA
  asm volatile("fence.proxy.async.shared::cta;\nwgmma.fence.sync.aligned;" ::: "memory");
  const uint64_t b = swizzled_descriptor(shared, chunk);
  if constexpr (kDtype == Dtype::kHalf) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, %8, 1, 1, 1, 0;"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b)
        : "memory");
  } else {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, %8, 1, 1, 1, 0;"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b)
        : "memory");
  }
  asm volatile("wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])::"memory");
#else
  __trap();
#endif
}

}  // namespace padmarlin::ptx
