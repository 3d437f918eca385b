// SPDX-License-Identifier: Apache-2.0
// The primitives that need no launch, over whole arrays: half2 arithmetic and bit instructions.
#include <ptx/bits.cuh>
#include <ptx/half2.cuh>

#include "bindings.h"

namespace padmarlin::emulator {
namespace {

template <Dtype kDtype>
void bind_half2(py::module_& module, const std::string& suffix) {
  const auto def = [&](const char* name, auto function) {
    module.def((name + suffix).c_str(), py::vectorize(function));
  };
  def("fma2_", [](uint32_t a, uint32_t b, uint32_t c) { return ptx::fma2<kDtype>(a, b, c); });
  def("mul2_", [](uint32_t a, uint32_t b) { return ptx::mul2<kDtype>(a, b); });
  def("sub2_", [](uint32_t a, uint32_t b) { return ptx::sub2<kDtype>(a, b); });
  def("pack2_", [](float low, float high) { return ptx::pack2<kDtype>(low, high); });
  def("to_float_", [](uint16_t bits) { return ptx::to_float<kDtype>(bits); });
  def("broadcast_low_", [](uint32_t value) { return ptx::broadcast_low<kDtype>(value); });
  def("broadcast_high_", [](uint32_t value) { return ptx::broadcast_high<kDtype>(value); });
}

}  // namespace

void bind_arithmetic(py::module_& module) {
  bind_half2<Dtype::kHalf>(module, "half");
  bind_half2<Dtype::kBfloat16>(module, "bfloat16");
  module.def("prmt", py::vectorize([](uint32_t a, uint32_t b, uint32_t selector) {
               return ptx::prmt(a, b, selector);
             }));
}

}  // namespace padmarlin::emulator
