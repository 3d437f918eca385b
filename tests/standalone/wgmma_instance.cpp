// SPDX-License-Identifier: Apache-2.0
// One wgmma kernel, of template arguments PADMARLIN_INSTANCE, and the pass that aligns its A.
#include "cuda/align_kernel.cuh"
#include "cuda/wgmma/kernel.cuh"
#include "instances.h"

namespace padmarlin::emulator {
namespace {

template <Dtype kDtype, int kBits, Dequant kDequant, bool kAsymmetric, int kRows>
bool register_instance() {
  return register_wgmma({{kDtype, kBits, kDequant, kAsymmetric, kRows},
                         wgmma::wgmma_kernel<kDtype, kBits, kDequant, kAsymmetric, kRows>,
                         align_kernel<true>,
                         align_kernel<false>});
}

[[maybe_unused]] const bool registered = register_instance<PADMARLIN_INSTANCE>();

}  // namespace
}  // namespace padmarlin::emulator
