// SPDX-License-Identifier: Apache-2.0
// Arithmetic on two 16-bit floats in one register, rounded to nearest even, subnormals kept.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <ptx/qualifiers.cuh>

#include "core/dtype.h"

namespace padmarlin::ptx {

PADMARLIN_DEVICE __half2 as_half2(uint32_t bits) { return *reinterpret_cast<__half2*>(&bits); }
PADMARLIN_DEVICE __nv_bfloat162 as_bfloat162(uint32_t bits) {
  return *reinterpret_cast<__nv_bfloat162*>(&bits);
}
PADMARLIN_DEVICE uint32_t as_bits(__half2 value) { return *reinterpret_cast<uint32_t*>(&value); }
PADMARLIN_DEVICE uint32_t as_bits(__nv_bfloat162 value) {
  return *reinterpret_cast<uint32_t*>(&value);
}

// a * b + c with one rounding.
template <Dtype kDtype>
PADMARLIN_DEVICE uint32_t fma2(uint32_t a, uint32_t b, uint32_t c) {
  if constexpr (kDtype == Dtype::kHalf) {
    return as_bits(__hfma2(as_half2(a), as_half2(b), as_half2(c)));
  } else {
    return as_bits(__hfma2(as_bfloat162(a), as_bfloat162(b), as_bfloat162(c)));
  }
}

// The _rn forms: the compiler must not fuse a product and a sum whose roundings are separate.
template <Dtype kDtype>
PADMARLIN_DEVICE uint32_t mul2(uint32_t a, uint32_t b) {
  if constexpr (kDtype == Dtype::kHalf) {
    return as_bits(__hmul2_rn(as_half2(a), as_half2(b)));
  } else {
    return as_bits(__hmul2_rn(as_bfloat162(a), as_bfloat162(b)));
  }
}

template <Dtype kDtype>
PADMARLIN_DEVICE uint32_t sub2(uint32_t a, uint32_t b) {
  if constexpr (kDtype == Dtype::kHalf) {
    return as_bits(__hsub2_rn(as_half2(a), as_half2(b)));
  } else {
    return as_bits(__hsub2_rn(as_bfloat162(a), as_bfloat162(b)));
  }
}

// Both halves of the result are the low (high) half of `value`. Folds into the operand selectors
// (.H0_H0 / .H1_H1) of the arithmetic that uses it.
template <Dtype kDtype>
PADMARLIN_DEVICE uint32_t broadcast_low(uint32_t value) {
  if constexpr (kDtype == Dtype::kHalf) return as_bits(__low2half2(as_half2(value)));
  return as_bits(__low2bfloat162(as_bfloat162(value)));
}
template <Dtype kDtype>
PADMARLIN_DEVICE uint32_t broadcast_high(uint32_t value) {
  if constexpr (kDtype == Dtype::kHalf) return as_bits(__high2half2(as_half2(value)));
  return as_bits(__high2bfloat162(as_bfloat162(value)));
}

// Rounds two fp32 values; `low` goes to bits 15..0.
template <Dtype kDtype>
PADMARLIN_DEVICE uint32_t pack2(float low, float high) {
  if constexpr (kDtype == Dtype::kHalf) return as_bits(__floats2half2_rn(low, high));
  return as_bits(__floats2bfloat162_rn(low, high));
}

// One 16-bit value to fp32, exact.
template <Dtype kDtype>
PADMARLIN_DEVICE float to_float(uint16_t bits) {
  if constexpr (kDtype == Dtype::kHalf) {
    return __half2float(*reinterpret_cast<__half*>(&bits));
  } else {
    return __bfloat162float(*reinterpret_cast<__nv_bfloat16*>(&bits));
  }
}

}  // namespace padmarlin::ptx
