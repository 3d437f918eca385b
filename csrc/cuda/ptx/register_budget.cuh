// SPDX-License-Identifier: Apache-2.0
// setmaxnreg: warpgroups of one block trade registers (PTX ISA, "setmaxnreg"). sm_90a.
#pragma once

#include <ptx/qualifiers.cuh>

namespace padmarlin::ptx {

// All warps of a warpgroup come. The block's registers are those of its launch: what one warpgroup
// gives back is all that another can take, and who takes waits for it.
template <int kRegisters>
PADMARLIN_DEVICE void give_registers() {
  static_assert(kRegisters % 8 == 0 && kRegisters >= 24 && kRegisters <= 256);
#if PADMARLIN_HAS_SM90A
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
#else
  __trap();
#endif
}

template <int kRegisters>
PADMARLIN_DEVICE void take_registers() {
  static_assert(kRegisters % 8 == 0 && kRegisters >= 24 && kRegisters <= 256);
#if PADMARLIN_HAS_SM90A
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
#else
  __trap();
#endif
}

}  // namespace padmarlin::ptx
