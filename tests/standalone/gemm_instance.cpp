// SPDX-License-Identifier: Apache-2.0
// One gemm kernel, of template arguments PADMARLIN_INSTANCE.
#include "cuda/gemm_kernel.cuh"
#include "instances.h"

namespace padmarlin::emulator {
namespace {

template <Dtype kDtype, int kBits, Dequant kDequant, bool kAsymmetric, int kMSteps>
bool register_instance() {
  return register_gemm({{kDtype, kBits, kDequant, kAsymmetric, kMSteps},
                        gemm_kernel<kDtype, kBits, kDequant, kAsymmetric, kMSteps>});
}

[[maybe_unused]] const bool registered = register_instance<PADMARLIN_INSTANCE>();

}  // namespace
}  // namespace padmarlin::emulator
