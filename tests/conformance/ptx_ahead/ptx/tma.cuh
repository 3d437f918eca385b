// SPDX-License-Identifier: Apache-2.0
// Device half of tests/emulator/ptx/tma.cuh, ahead of the kernel that will need it: the tensor
// copy engine's tile loads and the mbarrier that tells when they have landed (PTX ISA,
// "cp.async.bulk.tensor" and "Parallel Synchronization and Communication Instructions: mbarrier").
#pragma once

#include <cuda.h>

#include <ptx/qualifiers.cuh>
#include <ptx/shared_memory.cuh>

#define PADMARLIN_GRID_CONSTANT const __grid_constant__

namespace padmarlin::ptx {

using TensorMap = CUtensorMap;

// TMA exists from sm_90 on; below, a kernel that calls these traps.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900

// The fence makes the new barrier visible to the copy engine (the async proxy).
PADMARLIN_DEVICE void mbarrier_init(uint64_t* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\nfence.proxy.async.shared::cta;" ::"r"(
                   shared_address(barrier)),
               "r"(arrivals)
               : "memory");
}

// Arrives, and announces `bytes` that the phase must also wait for.
PADMARLIN_DEVICE void mbarrier_arrive_expect_tx(uint64_t* barrier, int bytes) {
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
      "r"(bytes)
      : "memory");
}

// Waits until the phase of that parity (0 first) is complete.
PADMARLIN_DEVICE void mbarrier_wait_parity(uint64_t* barrier, int parity) {
  uint32_t done = 0;
  while (!done) {
    asm volatile(
        "{\n.reg .pred p;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
        "selp.u32 %0, 1, 0, p;\n}"
        : "=r"(done)
        : "r"(shared_address(barrier)), "r"(parity)
        : "memory");
  }
}

// The map's box with its first element at column x, row y, either of which may be negative or past
// the end: what lies outside the tensor arrives as zeros. One thread calls it.
PADMARLIN_DEVICE void tma_load_2d(void* shared, const TensorMap& map, int x, int y,
                                  uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3}], [%4];" ::"r"(shared_address(shared)),
      "l"(&map), "r"(x), "r"(y), "r"(shared_address(barrier))
      : "memory");
}

#else

PADMARLIN_DEVICE void mbarrier_init(uint64_t*, int) { __trap(); }
PADMARLIN_DEVICE void mbarrier_arrive_expect_tx(uint64_t*, int) { __trap(); }
PADMARLIN_DEVICE void mbarrier_wait_parity(uint64_t*, int) { __trap(); }
PADMARLIN_DEVICE void tma_load_2d(void*, const TensorMap&, int, int, uint64_t*) { __trap(); }

#endif

}  // namespace padmarlin::ptx
