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
  static_assert(kColumns == 8 || (kColumns % 16 == 0 && kColumns >= 48 && kColumns <= 160));
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
// The first so many accumulators: their numbers, and themselves.
#define PADMARLIN_TEXT_4 "%0, %1, %2, %3"
#define PADMARLIN_TEXT_8 PADMARLIN_TEXT_4 ", %4, %5, %6, %7"
#define PADMARLIN_TEXT_24                  \
  PADMARLIN_TEXT_8                         \
  ", %8, %9, %10, %11, %12, %13, %14, %15" \
  ", %16, %17, %18, %19, %20, %21, %22, %23"
#define PADMARLIN_TEXT_32 PADMARLIN_TEXT_24 ", %24, %25, %26, %27, %28, %29, %30, %31"
#define PADMARLIN_TEXT_40 PADMARLIN_TEXT_32 ", %32, %33, %34, %35, %36, %37, %38, %39"
#define PADMARLIN_TEXT_48 PADMARLIN_TEXT_40 ", %40, %41, %42, %43, %44, %45, %46, %47"
#define PADMARLIN_TEXT_56 PADMARLIN_TEXT_48 ", %48, %49, %50, %51, %52, %53, %54, %55"
#define PADMARLIN_TEXT_64 PADMARLIN_TEXT_56 ", %56, %57, %58, %59, %60, %61, %62, %63"
#define PADMARLIN_TEXT_72 PADMARLIN_TEXT_64 ", %64, %65, %66, %67, %68, %69, %70, %71"
#define PADMARLIN_TEXT_80 PADMARLIN_TEXT_72 ", %72, %73, %74, %75, %76, %77, %78, %79"
#define PADMARLIN_SUMS_4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define PADMARLIN_SUMS_8(i) PADMARLIN_SUMS_4(i), PADMARLIN_SUMS_4(i + 4)
#define PADMARLIN_SUMS_24 PADMARLIN_SUMS_8(0), PADMARLIN_SUMS_8(8), PADMARLIN_SUMS_8(16)
#define PADMARLIN_SUMS_32 PADMARLIN_SUMS_24, PADMARLIN_SUMS_8(24)
#define PADMARLIN_SUMS_40 PADMARLIN_SUMS_32, PADMARLIN_SUMS_8(32)
#define PADMARLIN_SUMS_48 PADMARLIN_SUMS_40, PADMARLIN_SUMS_8(40)
#define PADMARLIN_SUMS_56 PADMARLIN_SUMS_48, PADMARLIN_SUMS_8(48)
#define PADMARLIN_SUMS_64 PADMARLIN_SUMS_56, PADMARLIN_SUMS_8(56)
#define PADMARLIN_SUMS_72 PADMARLIN_SUMS_64, PADMARLIN_SUMS_8(64)
#define PADMARLIN_SUMS_80 PADMARLIN_SUMS_72, PADMARLIN_SUMS_8(72)
  if constexpr (kColumns == 8) {
    PADMARLIN_WGMMA("8", PADMARLIN_TEXT_4, "%4, %5, %6, %7", "%8", "%9", PADMARLIN_SUMS_4(0))
  } else if constexpr (kColumns == 48) {
    PADMARLIN_WGMMA("48", PADMARLIN_TEXT_24, "%24, %25, %26, %27", "%28", "%29", PADMARLIN_SUMS_24)
  } else if constexpr (kColumns == 64) {
    PADMARLIN_WGMMA("64", PADMARLIN_TEXT_32, "%32, %33, %34, %35", "%36", "%37", PADMARLIN_SUMS_32)
  } else if constexpr (kColumns == 80) {
    PADMARLIN_WGMMA("80", PADMARLIN_TEXT_40, "%40, %41, %42, %43", "%44", "%45", PADMARLIN_SUMS_40)
  } else if constexpr (kColumns == 96) {
    PADMARLIN_WGMMA("96", PADMARLIN_TEXT_48, "%48, %49, %50, %51", "%52", "%53", PADMARLIN_SUMS_48)
  } else if constexpr (kColumns == 112) {
    PADMARLIN_WGMMA("112", PADMARLIN_TEXT_56, "%56, %57, %58, %59", "%60", "%61", PADMARLIN_SUMS_56)
  } else if constexpr (kColumns == 128) {
    PADMARLIN_WGMMA("128", PADMARLIN_TEXT_64, "%64, %65, %66, %67", "%68", "%69", PADMARLIN_SUMS_64)
  } else if constexpr (kColumns == 144) {
    PADMARLIN_WGMMA("144", PADMARLIN_TEXT_72, "%72, %73, %74, %75", "%76", "%77", PADMARLIN_SUMS_72)
  } else if constexpr (kColumns == 160) {
    PADMARLIN_WGMMA("160", PADMARLIN_TEXT_80, "%80, %81, %82, %83", "%84", "%85", PADMARLIN_SUMS_80)
  }
#undef PADMARLIN_SUMS_80
#undef PADMARLIN_SUMS_72
#undef PADMARLIN_SUMS_64
#undef PADMARLIN_SUMS_56
#undef PADMARLIN_SUMS_48
#undef PADMARLIN_SUMS_40
#undef PADMARLIN_SUMS_32
#undef PADMARLIN_SUMS_24
#undef PADMARLIN_SUMS_8
#undef PADMARLIN_SUMS_4
#undef PADMARLIN_TEXT_80
#undef PADMARLIN_TEXT_72
#undef PADMARLIN_TEXT_64
#undef PADMARLIN_TEXT_56
#undef PADMARLIN_TEXT_48
#undef PADMARLIN_TEXT_40
#undef PADMARLIN_TEXT_32
#undef PADMARLIN_TEXT_24
#undef PADMARLIN_TEXT_8
#undef PADMARLIN_TEXT_4
#undef PADMARLIN_WGMMA
#undef PADMARLIN_WGMMA_AS
#else
  __trap();
#endif
}

}  // namespace padmarlin::ptx
