// SPDX-License-Identifier: Apache-2.0
// Host twin of the arithmetic on two 16-bit floats in one register.
#pragma once

#include <ptx/qualifiers.cuh>

#include "core/dtype.h"
#include "float16.h"

namespace padmarlin::ptx {

PADMARLIN_DEVICE uint16_t low_half(uint32_t pair) { return static_cast<uint16_t>(pair); }
PADMARLIN_DEVICE uint16_t high_half(uint32_t pair) { return static_cast<uint16_t>(pair >> 16); }
PADMARLIN_DEVICE uint32_t join_halves(uint16_t low, uint16_t high) {
  return static_cast<uint32_t>(high) << 16 | low;
}

template <Dtype kDtype>
PADMARLIN_DEVICE uint32_t fma2(uint32_t a, uint32_t b, uint32_t c) {
  return join_halves(emulator::fma16<kDtype>(low_half(a), low_half(b), low_half(c)),
                     emulator::fma16<kDtype>(high_half(a), high_half(b), high_half(c)));
}

template <Dtype kDtype>
PADMARLIN_DEVICE uint32_t mul2(uint32_t a, uint32_t b) {
  return join_halves(emulator::mul16<kDtype>(low_half(a), low_half(b)),
                     emulator::mul16<kDtype>(high_half(a), high_half(b)));
}

template <Dtype kDtype>
PADMARLIN_DEVICE uint32_t sub2(uint32_t a, uint32_t b) {
  return join_halves(emulator::sub16<kDtype>(low_half(a), low_half(b)),
                     emulator::sub16<kDtype>(high_half(a), high_half(b)));
}

template <Dtype kDtype>
PADMARLIN_DEVICE uint32_t broadcast_low(uint32_t value) {
  return join_halves(low_half(value), low_half(value));
}
template <Dtype kDtype>
PADMARLIN_DEVICE uint32_t broadcast_high(uint32_t value) {
  return join_halves(high_half(value), high_half(value));
}

template <Dtype kDtype>
PADMARLIN_DEVICE uint32_t pack2(float low, float high) {
  return join_halves(emulator::from_float<kDtype>(low), emulator::from_float<kDtype>(high));
}

template <Dtype kDtype>
PADMARLIN_DEVICE float to_float(uint16_t bits) {
  return emulator::to_float<kDtype>(bits);
}

}  // namespace padmarlin::ptx
