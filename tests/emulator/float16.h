// SPDX-License-Identifier: Apache-2.0
// fp16 and bf16 on the host: exact conversion to float, one correct rounding back. Subnormals are
// kept, NaN results are the canonical 0x7fff, as on the device.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "core/dtype.h"

namespace padmarlin::emulator {

template <Dtype kDtype>
inline float to_float(uint16_t bits) {
  if constexpr (kDtype == Dtype::kHalf) return static_cast<float>(std::bit_cast<_Float16>(bits));
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

// Rounds to nearest even.
template <Dtype kDtype>
inline uint16_t from_float(float value) {
  if (std::isnan(value)) return 0x7fff;
  if constexpr (kDtype == Dtype::kHalf) {
    return std::bit_cast<uint16_t>(static_cast<_Float16>(value));
  }
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// Rounding to odd (what is inexact gets an odd last bit) is how a value passes through a narrower
// format on its way to an even narrower one without being rounded twice: the odd bit remembers on
// which side of a tie it was (Boldo and Melquiond, "When double rounding is odd"). The middle
// format needs two bits more than the last: float has 24 >= 11 + 2, double 53.
inline float round_to_odd(double value) {
  const float nearest = static_cast<float>(value);
  if (nearest == value || std::isnan(value) || std::bit_cast<uint32_t>(nearest) & 1) return nearest;
  return std::nextafter(nearest, value > nearest ? INFINITY : -INFINITY);
}

// a + b, rounded to odd. The error of a double sum is a double (Knuth's TwoSum).
inline double sum_to_odd(double a, double b) {
  const double sum = a + b;
  const double b_part = sum - a, a_part = sum - b_part;
  const double error = (a - a_part) + (b - b_part);
  if (!std::isfinite(sum) || error == 0 || std::bit_cast<uint64_t>(sum) & 1) return sum;
  return std::nextafter(sum, error > 0 ? INFINITY : -INFINITY);
}

// a * b + c with one rounding: the product of two 11-bit numbers is exact in double.
template <Dtype kDtype>
inline uint16_t fma16(uint16_t a, uint16_t b, uint16_t c) {
  const double product = static_cast<double>(to_float<kDtype>(a)) * to_float<kDtype>(b);
  return from_float<kDtype>(round_to_odd(sum_to_odd(product, to_float<kDtype>(c))));
}

// Products and differences are fmas too: x - 0 and 1 * x are exact, and -0 is the zero that leaves
// the sign of a zero product alone.
template <Dtype kDtype>
inline uint16_t mul16(uint16_t a, uint16_t b) {
  return fma16<kDtype>(a, b, 0x8000);
}
template <Dtype kDtype>
inline uint16_t sub16(uint16_t a, uint16_t b) {
  constexpr uint16_t kOne = kDtype == Dtype::kHalf ? 0x3c00 : 0x3f80;
  return fma16<kDtype>(a, kOne, b ^ 0x8000);
}

}  // namespace padmarlin::emulator
