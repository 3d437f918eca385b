// SPDX-License-Identifier: Apache-2.0
// PTX special registers, one function each (PTX ISA, section "Special Registers").
#pragma once

#include <ptx/qualifiers.cuh>

namespace padmarlin::ptx {

PADMARLIN_DEVICE int tid_x() { return static_cast<int>(threadIdx.x); }
PADMARLIN_DEVICE int ctaid_x() { return static_cast<int>(blockIdx.x); }
PADMARLIN_DEVICE int ctaid_y() { return static_cast<int>(blockIdx.y); }

}  // namespace padmarlin::ptx
