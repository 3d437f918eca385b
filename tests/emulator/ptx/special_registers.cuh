// SPDX-License-Identifier: Apache-2.0
// Host twin of the special registers.
#pragma once

#include <ptx/qualifiers.cuh>

namespace padmarlin::ptx {

PADMARLIN_DEVICE int tid_x() { return emulator::tid_x(); }
PADMARLIN_DEVICE int ctaid_x() { return emulator::ctaid_x(); }
PADMARLIN_DEVICE int ctaid_y() { return emulator::ctaid_y(); }

}  // namespace padmarlin::ptx
