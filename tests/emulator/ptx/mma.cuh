// SPDX-License-Identifier: Apache-2.0
// Host twin of mma.sync.
#pragma once

#include <ptx/qualifiers.cuh>

#include "core/dtype.h"

namespace padmarlin::ptx {

template <Dtype kDtype>
PADMARLIN_DEVICE void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  emulator::mma_m16n8k16(kDtype, d, a, b);
}

}  // namespace padmarlin::ptx
