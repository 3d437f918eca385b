// SPDX-License-Identifier: Apache-2.0
// Primitives that need no partner, and the dequantization built of them, over whole arrays.
#pragma once

#include <ptx/bits.cuh>
#include <ptx/half2.cuh>
#include <ptx/special_registers.cuh>

#include "cuda/dequant.cuh"

namespace padmarlin::probes {

constexpr int kMapThreads = 128;

// out[i] = Function::apply(in[i]...). One block.
template <typename Function, typename Out, typename... In>
__global__ void map_probe(int count, Out* out, const In*... in) {
  for (int i = ptx::tid_x(); i < count; i += kMapThreads) out[i] = Function::apply(in[i]...);
}

template <Dtype kDtype>
struct Fma2 {
  static PADMARLIN_DEVICE uint32_t apply(uint32_t a, uint32_t b, uint32_t c) {
    return ptx::fma2<kDtype>(a, b, c);
  }
};
template <Dtype kDtype>
struct Mul2 {
  static PADMARLIN_DEVICE uint32_t apply(uint32_t a, uint32_t b) { return ptx::mul2<kDtype>(a, b); }
};
template <Dtype kDtype>
struct Sub2 {
  static PADMARLIN_DEVICE uint32_t apply(uint32_t a, uint32_t b) { return ptx::sub2<kDtype>(a, b); }
};
template <Dtype kDtype>
struct BroadcastLow {
  static PADMARLIN_DEVICE uint32_t apply(uint32_t a) { return ptx::broadcast_low<kDtype>(a); }
};
template <Dtype kDtype>
struct BroadcastHigh {
  static PADMARLIN_DEVICE uint32_t apply(uint32_t a) { return ptx::broadcast_high<kDtype>(a); }
};
template <Dtype kDtype>
struct Pack2 {
  static PADMARLIN_DEVICE uint32_t apply(float low, float high) {
    return ptx::pack2<kDtype>(low, high);
  }
};
template <Dtype kDtype>
struct ToFloat {
  static PADMARLIN_DEVICE float apply(uint16_t bits) { return ptx::to_float<kDtype>(bits); }
};
struct Prmt {
  static PADMARLIN_DEVICE uint32_t apply(uint32_t a, uint32_t b, uint32_t selector) {
    return ptx::prmt(a, b, selector);
  }
};

// weights (count, 4): the fragment of words (count, planes) under scales and zeros (count), whose
// halves belong to the columns n and n + 8. One block.
template <Dtype kDtype, int kBits, Dequant kDequant, bool kAsymmetric>
__global__ void dequantize_probe(int count, const uint32_t* words, const uint32_t* scales,
                                 const uint32_t* zeros, uint32_t* weights) {
  using Weights = Dequantizer<kDtype, kBits, kDequant, kAsymmetric>;
  for (int i = ptx::tid_x(); i < count; i += kMapThreads) {
    uint32_t own[planes(kBits)], fragment[4];
    for (int plane = 0; plane < planes(kBits); ++plane)
      own[plane] = words[planes(kBits) * i + plane];
    Weights::fragment(own, Weights::columns(scales[i], zeros[i]), fragment);
    for (int j = 0; j < 4; ++j) weights[4 * i + j] = fragment[j];
  }
}

}  // namespace padmarlin::probes
