// SPDX-License-Identifier: Apache-2.0
// wgmma with A in registers (PTX ISA, "Asynchronous Warpgroup Level Matrix Instructions"). sm_90a.
//
// From its issue to the wait that covers its group a wgmma owns its registers: nothing may write
// those of A, nothing may touch those of d. tests/compile_gates looks for that in the machine code.
#pragma once

#include <ptx/qualifiers.cuh>
#include <ptx/shared_memory.cuh>

#include "core/dtype.h"

namespace padmarlin::ptx {

// Orders this warpgroup's register writes before the wgmma that follow.
PADMARLIN_DEVICE void wgmma_fence() {
#if PADMARLIN_HAS_SM90A
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#else
  __trap();
#endif
}

PADMARLIN_DEVICE void wgmma_commit_group() {
#if PADMARLIN_HAS_SM90A
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#else
  __trap();
#endif
}

// Waits until at most kPending of the newest groups are still running.
template <int kPending>
PADMARLIN_DEVICE void wgmma_wait_group() {
#if PADMARLIN_HAS_SM90A
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
#else
  __trap();
#endif
}

// PTX ISA, "Matrix Descriptor Format": addresses and offsets in units of 16 bytes. With the
// 128-byte swizzle (1 in bits 62..63) eight rows of 64 k take 8 * 128 bytes, the stride between
// groups of eight rows; the leading offset is not used. `rows` is 1024-byte aligned; the sixteen k
// from 16-byte chunk `chunk` on begin that much later.
PADMARLIN_DEVICE uint64_t swizzled_descriptor(const uint8_t* rows, int chunk) {
  const uint64_t start = shared_address(rows) + 16 * chunk;
  constexpr uint64_t kStride = 8 * 128 / 16, kSwizzle128 = 1;
  return (start & 0x3ffff) >> 4 | uint64_t{1} << 16 | kStride << 32 | kSwizzle128 << 62;
}

// Starts d (64 x kColumns, fp32) = a (64 x 16) * b (16 x kColumns) + (accumulate ? d : 0). Warp w
// of the warpgroup holds rows 16w .. 16w + 15 of a and d; lane 4g + t of it
//   a[0]: (g, 2t..2t+1)  a[1]: (g+8, 2t..)  a[2]: (g, 2t+8..)  a[3]: (g+8, 2t+8..)     (row, k)
//   d[4i], d[4i+1]: (g, 8i+2t..8i+2t+1)  d[4i+2], d[4i+3]: (g+8, 8i+2t..)              (row,
//   column)
// b lies in shared memory as kColumns rows of k, see swizzled_descriptor.
template <Dtype kDtype, int kColumns>
PADMARLIN_DEVICE void wgmma_m64k16(float (&d)[kColumns / 2], const uint32_t (&a)[4], uint64_t b,
                                   bool accumulate) {
  static_assert(kColumns == 8 || kColumns == 64 || kColumns == 128 || kColumns == 160);
#if PADMARLIN_HAS_SM90A
// The instruction for both dtypes. `d_text`, `a_text`, ..: the numbers of the operands; then the
// accumulators.
#define PADMARLIN_WGMMA_AS(type, columns, d_text, a_text, b_text, p_text, ...)            \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " p_text                                 \
               ", 0;\nwgmma.mma_async.sync.aligned.m64n" columns "k16.f32." type "." type \
               " {" d_text "}, {" a_text "}, " b_text ", p, 1, 1, 0;\n}"                  \
               : __VA_ARGS__                                                              \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int{accumulate}))
#define PADMARLIN_WGMMA(...)                 \
  if constexpr (kDtype == Dtype::kHalf) {    \
    PADMARLIN_WGMMA_AS("f16", __VA_ARGS__);  \
  } else {                                   \
    PADMARLIN_WGMMA_AS("bf16", __VA_ARGS__); \
  }
#define PADMARLIN_D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define PADMARLIN_D16(i) \
  PADMARLIN_D4(i), PADMARLIN_D4(i + 4), PADMARLIN_D4(i + 8), PADMARLIN_D4(i + 12)
#define PADMARLIN_D32(i) PADMARLIN_D16(i), PADMARLIN_D16(i + 16)
  if constexpr (kColumns == 8) {
    PADMARLIN_WGMMA("8", "%0, %1, %2, %3", "%4, %5, %6, %7", "%8", "%9", PADMARLIN_D4(0))
  } else if constexpr (kColumns == 64) {
    PADMARLIN_WGMMA(
        "64",
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31",
        "%32, %33, %34, %35", "%36", "%37", PADMARLIN_D32(0))
  } else if constexpr (kColumns == 128) {
    PADMARLIN_WGMMA(
        "128",
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63",
        "%64, %65, %66, %67", "%68", "%69", PADMARLIN_D32(0), PADMARLIN_D32(32))
  } else if constexpr (kColumns == 160) {
    PADMARLIN_WGMMA(
        "160",
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
        "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79",
        "%80, %81, %82, %83", "%84", "%85", PADMARLIN_D32(0), PADMARLIN_D32(32), PADMARLIN_D16(64))
  }
#undef PADMARLIN_D32
#undef PADMARLIN_D16
#undef PADMARLIN_D4
#undef PADMARLIN_WGMMA
#undef PADMARLIN_WGMMA_AS
#else
  __trap();
#endif
}

}  // namespace padmarlin::ptx
