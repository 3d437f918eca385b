// SPDX-License-Identifier: Apache-2.0
// mbarrier: a barrier in shared memory that counts arrivals of threads and bytes of bulk copies
// (PTX ISA, "Parallel Synchronization and Communication Instructions: mbarrier"). sm_90.
#pragma once

#include <ptx/qualifiers.cuh>
#include <ptx/shared_memory.cuh>

namespace padmarlin::ptx {

// Phase 0 begins; each phase ends with `arrivals` arrivals and all announced bytes.
PADMARLIN_DEVICE void mbarrier_init(uint64_t* barrier, int arrivals) {
#if PADMARLIN_HAS_SM90
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)),
               "r"(arrivals)
               : "memory");
#else
  __trap();
#endif
}

// Makes the barriers that this thread has initialised visible to the copy engine (the async
// proxy); a block barrier after it makes them visible to the other threads.
PADMARLIN_DEVICE void fence_mbarrier_init() {
#if PADMARLIN_HAS_SM90
  asm volatile("fence.mbarrier_init.release.cluster;\nfence.proxy.async.shared::cta;" ::: "memory");
#else
  __trap();
#endif
}

PADMARLIN_DEVICE void mbarrier_arrive(uint64_t* barrier) {
#if PADMARLIN_HAS_SM90
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier))
               : "memory");
#else
  __trap();
#endif
}

// Arrives, and announces `bytes` of copies (< 2^20) that the phase must also wait for.
PADMARLIN_DEVICE void mbarrier_arrive_expect_tx(uint64_t* barrier, int bytes) {
#if PADMARLIN_HAS_SM90
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
      "r"(bytes)
      : "memory");
#else
  __trap();
#endif
}

// Announces `bytes` (< 2^20) without arriving: the phase cannot end before this thread arrives,
// even if the bytes come first (PTX ISA, "mbarrier.expect_tx").
PADMARLIN_DEVICE void mbarrier_expect_tx(uint64_t* barrier, int bytes) {
#if PADMARLIN_HAS_SM90
  asm volatile(
      "mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)),
      "r"(bytes)
      : "memory");
#else
  __trap();
#endif
}

// Waits until the phase of that parity is over: phases 0, 2, .. have parity 0. A barrier in phase 0
// counts as past a phase of parity 1: a ring's producer finds every slot free in its first round.
PADMARLIN_DEVICE void mbarrier_wait_parity(uint64_t* barrier, int parity) {
#if PADMARLIN_HAS_SM90
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
#else
  __trap();
#endif
}

}  // namespace padmarlin::ptx
