// SPDX-License-Identifier: Apache-2.0
// Packed words -> the 16-bit weights of an m16n8k16 fragment. The algebra is in core/layout.h
// (enum Dequant); the rounding is (q - z) * s, once, in the weight's dtype.
//
// One word (two at 8 bits) holds the eight codes of columns n = g and n + 8 = g + 8 at
// k = 2t, 2t + 1, 2t + 8, 2t + 9. fragment[2 * k_half + column_half] gets the pair (k, k + 1), so
//   columns n, n + 8 are the operands B {fragment[0], fragment[2]} and {fragment[1], fragment[3]},
//   and the four registers together are operand A of the transposed product (rows n, n + 8).
#pragma once

#include <ptx/bits.cuh>
#include <ptx/half2.cuh>

#include "core/layout.h"

namespace padmarlin {

// The same 16 bits in both halves of a register.
constexpr uint32_t twice(uint32_t half) { return half << 16 | half; }

// 2^exponent as a 16-bit float (normal numbers).
constexpr uint32_t power_of_two(Dtype dtype, int exponent) {
  return dtype == Dtype::kHalf ? static_cast<uint32_t>(exponent + 15) << 10
                               : static_cast<uint32_t>(exponent + 127) << 7;
}

template <Dtype kDtype, int kBits, Dequant kDequant, bool kAsymmetric>
struct Dequantizer {
  static_assert(kBits == 4 || kBits == 8, "codes have 4 or 8 bits");
  static_assert(kBits == 4 || kDequant != Dequant::kTwoField, "8-bit codes have one field");
  static_assert(kAsymmetric || kDequant != Dequant::kWide, "wide scales come with zeros");

  static constexpr int kBit[2] = {read_bit(kDtype, kBits, kDequant, 0),
                                  read_bit(kDtype, kBits, kDequant, 1)};
  static_assert(kBit[0] + kBits <= linear_bits(kDtype), "a field must stay in the linear range");

  // Scale and zero of the columns n (low half) and n + 8 (high half), as stored; for symmetric
  // weights `zero` becomes the addend -z * s.
  struct Columns {
    uint32_t scale, zero;
  };

  static PADMARLIN_DEVICE Columns columns(uint32_t scale, uint32_t zero) {
    if constexpr (kAsymmetric) {
      return {scale, zero};
    } else {
      // z << bit, read as a float, is z * 2^-e: times s * 2^e gives z * s, exactly.
      constexpr uint32_t kZero = 1u << (kBits - 1), kMinus = 0x8000u;
      constexpr uint32_t kZeros = (kMinus | kZero << kBit[1]) << 16 | (kMinus | kZero << kBit[0]);
      return {scale, ptx::mul2<kDtype>(scale, kZeros)};
    }
  }

  static PADMARLIN_DEVICE void fragment(const uint32_t (&words)[kBits / 4], Columns columns,
                                        uint32_t (&weights)[4]) {
    uint32_t codes[4];
    fields(words, codes);
    const uint32_t scale[2] = {ptx::broadcast_low<kDtype>(columns.scale),
                               ptx::broadcast_high<kDtype>(columns.scale)};
    const uint32_t zero[2] = {ptx::broadcast_low<kDtype>(columns.zero),
                              ptx::broadcast_high<kDtype>(columns.zero)};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      weights[i] = scaled(codes[i], scale[i % 2], zero[i % 2], i % 2);
    }
  }

 private:
  // Masks the codes out of their words: each half of codes[i] is code << kBit[i % 2].
  static PADMARLIN_DEVICE void fields(const uint32_t (&words)[kBits / 4], uint32_t (&codes)[4]) {
    constexpr uint32_t kMask[2] = {twice(((1u << kBits) - 1) << kBit[0]),
                                   twice(((1u << kBits) - 1) << kBit[1])};
#pragma unroll
    for (int k_half = 0; k_half < 2; ++k_half) {
      if constexpr (kBits == 4) {
        // The byte swap of each half brings the k_half = 1 fields to the k_half = 0 places.
        const uint32_t word = k_half == 0 ? words[0] : ptx::prmt(words[0], 0, 0x2301);
        codes[2 * k_half] = word & kMask[0];
        codes[2 * k_half + 1] = (kDequant == Dequant::kOneField ? word << 4 : word) & kMask[1];
      } else {
        codes[2 * k_half] = words[k_half] & kMask[0];
        codes[2 * k_half + 1] =
            ptx::prmt(words[k_half], 0, 0x4341);  // bytes 1 and 3, zero-extended
      }
    }
  }

  static PADMARLIN_DEVICE uint32_t scaled(uint32_t code, uint32_t scale, uint32_t zero,
                                          int column_half) {
    if constexpr (!kAsymmetric) {
      return ptx::fma2<kDtype>(code, scale, zero);
    } else {
      uint32_t difference = ptx::sub2<kDtype>(code, zero);
      if constexpr (kDequant == Dequant::kWide) {
        // 2^e overflows a 16-bit float, so it takes two factors; q - z is exact throughout.
        constexpr int kLargest = kDtype == Dtype::kHalf ? 15 : 127;
        constexpr uint32_t kFirst = power_of_two(kDtype, kLargest);
        constexpr int kRest = unit_exponent(kDtype) - kLargest;
        constexpr uint32_t kSecond[2] = {power_of_two(kDtype, kRest - kBit[0]),
                                         power_of_two(kDtype, kRest - kBit[1])};
        difference = ptx::mul2<kDtype>(difference, twice(kFirst));
        difference = ptx::mul2<kDtype>(difference, twice(kSecond[column_half]));
      }
      return ptx::mul2<kDtype>(difference, scale);
    }
  }
};

}  // namespace padmarlin
