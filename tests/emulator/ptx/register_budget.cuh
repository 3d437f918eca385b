// SPDX-License-Identifier: Apache-2.0
// Host twin of setmaxnreg: keeps the block's account.
#pragma once

#include <ptx/qualifiers.cuh>

namespace padmarlin::ptx {

template <int kRegisters>
PADMARLIN_DEVICE void give_registers() {
  emulator::setmaxnreg(kRegisters, false);
}

template <int kRegisters>
PADMARLIN_DEVICE void take_registers() {
  emulator::setmaxnreg(kRegisters, true);
}

}  // namespace padmarlin::ptx
