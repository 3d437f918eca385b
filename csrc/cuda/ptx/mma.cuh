// SPDX-License-Identifier: Apache-2.0
// mma.sync (PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type").
#pragma once

#include <ptx/qualifiers.cuh>

#include "core/dtype.h"

namespace padmarlin::ptx {

// d (16 x 8, fp32) += a (16 x 16) * b (16 x 8). Lane 4g + t holds
//   a[0]: (g, 2t..2t+1)  a[1]: (g+8, 2t..)  a[2]: (g, 2t+8..)  a[3]: (g+8, 2t+8..)   (row, k)
//   b[0]: (2t..2t+1, g)  b[1]: (2t+8..2t+9, g)                                       (k, column)
//   d[0], d[1]: (g, 2t..2t+1)  d[2], d[3]: (g+8, 2t..2t+1)                           (row, column)
template <Dtype kDtype>
PADMARLIN_DEVICE void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  if constexpr (kDtype == Dtype::kHalf) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
}

}  // namespace padmarlin::ptx
