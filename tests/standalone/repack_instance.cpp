// SPDX-License-Identifier: Apache-2.0
// The repack kernel for PADMARLIN_INSTANCE bits.
#include "cuda/repack_kernel.cuh"
#include "instances.h"

namespace padmarlin::emulator {
namespace {

[[maybe_unused]] const bool registered =
    register_repack({PADMARLIN_INSTANCE, repack_gptq_kernel<PADMARLIN_INSTANCE>});

}  // namespace
}  // namespace padmarlin::emulator
