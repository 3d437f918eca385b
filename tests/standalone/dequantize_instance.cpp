// SPDX-License-Identifier: Apache-2.0
// One dequantize kernel, of template arguments PADMARLIN_INSTANCE.
#include "cuda/dequantize_kernel.cuh"
#include "instances.h"

namespace padmarlin::emulator {
namespace {

template <Dtype kDtype, int kBits, Dequant kDequant, bool kAsymmetric>
bool register_instance() {
  return register_dequantize({{kDtype, kBits, kDequant, kAsymmetric},
                              dequantize_kernel<kDtype, kBits, kDequant, kAsymmetric>});
}

[[maybe_unused]] const bool registered = register_instance<PADMARLIN_INSTANCE>();

}  // namespace
}  // namespace padmarlin::emulator
