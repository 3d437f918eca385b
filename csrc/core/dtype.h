// SPDX-License-Identifier: Apache-2.0
// The two activation types and what the subnormal dequantization needs to know of each.
// Pure C++: no CUDA, no torch.
#pragma once

namespace padmarlin {

enum class Dtype : int { kHalf = 0, kBfloat16 = 1 };

// A 16-bit pattern `i` small enough to leave the exponent field at 0 or 1 *is* the number
// i * 2^-kUnitExponent: subnormals and the first normal binade share one spacing (IEEE 754).
//   fp16: spacing 2^-24,  linear for i < 2^11 (10 mantissa bits + the first exponent bit)
//   bf16: spacing 2^-133, linear for i < 2^8  ( 7 mantissa bits + the first exponent bit)
// So a code masked out of a packed word needs no conversion: it is already a float, only scaled.
constexpr int unit_exponent(Dtype dtype) { return dtype == Dtype::kHalf ? 24 : 133; }
constexpr int linear_bits(Dtype dtype) { return dtype == Dtype::kHalf ? 11 : 8; }

}  // namespace padmarlin
