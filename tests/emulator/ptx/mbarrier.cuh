// SPDX-License-Identifier: Apache-2.0
// Host twin of mbarrier.
#pragma once

#include <ptx/qualifiers.cuh>
#include <ptx/shared_memory.cuh>

namespace padmarlin::ptx {

PADMARLIN_DEVICE void mbarrier_init(uint64_t* barrier, int arrivals) {
  emulator::mbarrier_init(barrier, arrivals);
}

PADMARLIN_DEVICE void fence_mbarrier_init() { emulator::fence_mbarrier_init(); }

PADMARLIN_DEVICE void mbarrier_arrive(uint64_t* barrier) { emulator::mbarrier_arrive(barrier, 0); }

PADMARLIN_DEVICE void mbarrier_arrive_expect_tx(uint64_t* barrier, int bytes) {
  emulator::mbarrier_arrive(barrier, bytes);
}

PADMARLIN_DEVICE void mbarrier_expect_tx(uint64_t* barrier, int bytes) {
  emulator::mbarrier_expect_tx(barrier, bytes);
}

PADMARLIN_DEVICE void mbarrier_wait_parity(uint64_t* barrier, int parity) {
  emulator::mbarrier_wait_parity(barrier, parity);
}

}  // namespace padmarlin::ptx
