// SPDX-License-Identifier: Apache-2.0
// A kernel with all that can go wrong around shared memory, and the mistakes to make on request:
// what the emulator must find. Not for the device, where most of them are undefined.
#pragma once

#include <ptx/barrier.cuh>
#include <ptx/cp_async.cuh>
#include <ptx/mma.cuh>
#include <ptx/shared_memory.cuh>
#include <ptx/special_registers.cuh>

#include "core/layout.h"

namespace padmarlin::probes {

enum class Fault {
  kNone,
  kNoWait,              // reads what cp.async has not delivered
  kWaitTooWeak,         // wait_group<1>: leaves the newest group, the one that is needed
  kNoBarrier,           // reads what another thread has not written
  kExitBeforeBarrier,   // one thread leaves, the others wait for it
  kExitBeforeLdmatrix,  // one lane leaves, its warp waits for it
  kDivergence,          // half a warp at ldmatrix, half at mma
  kDeadlock,            // half a warp at ldmatrix, half at the barrier
  kExitWithCopies,      // commits a copy and leaves
  kSpin,                // no mistake: one thread polls for what another one will store
  kLivelock,            // polls for what nobody stores
  kMisalignedShared,
  kSharedOutOfRange,
  kMisalignedGlobal,
  kGlobalOutOfRange,  // the thread after the last one's 16 bytes
};

constexpr int kReverseThreads = 64;
constexpr int kReverseChunks = kReverseThreads;  // of 16 bytes
constexpr int kReverseSharedBytes = 16 * kReverseChunks;

// The thread that makes the mistakes only one thread makes.
constexpr int kFaultyThread = 37;

template <Fault kFault>
PADMARLIN_DEVICE void fail_together(uint8_t* shared, int thread) {
  uint32_t fragment[4] = {}, b[2] = {};
  float d[4] = {};
  if (kFault == Fault::kExitBeforeLdmatrix || thread % kWarp < kWarp / 2) {
    ptx::ldmatrix_x4(fragment, shared);
  } else if (kFault == Fault::kDivergence) {
    ptx::mma_m16n8k16<Dtype::kHalf>(d, fragment, b);
  } else {
    ptx::bar_sync();
  }
}

// Thread kFaultyThread goes round until the block's last thread has stored zeros.
template <Fault kFault>
PADMARLIN_DEVICE void poll(uint8_t* flag, int thread) {
  if (thread == kFaultyThread) {
    while (ptx::ld_shared_v4(flag).x != 0) {
    }
  }
  if (kFault == Fault::kSpin && thread == kReverseThreads - 1) {
    ptx::st_shared_v4(flag, uint4{0, 0, 0, 0});
  }
  ptx::bar_sync();
}

// Each block reverses its 64 chunks of 16 bytes, through shared memory. Grid (x, y).
template <Fault kFault>
__global__ void reverse_probe(const uint8_t* in, uint8_t* out, int grid_x) {
  const int thread = ptx::tid_x();
  const int block = ptx::ctaid_y() * grid_x + ptx::ctaid_x();
  uint8_t* const shared = ptx::dynamic_shared();

  const bool faulty = thread == kFaultyThread;
  if (kFault == Fault::kExitBeforeBarrier && faulty) return;
  if (kFault == Fault::kExitBeforeLdmatrix && faulty) return;
  if constexpr (kFault == Fault::kExitBeforeLdmatrix || kFault == Fault::kDivergence ||
                kFault == Fault::kDeadlock) {
    fail_together<kFault>(shared, thread);
  }

  if constexpr (kFault == Fault::kSpin || kFault == Fault::kLivelock) poll<kFault>(shared, thread);

  uint8_t* to = shared + 16 * thread;
  const uint8_t* from = in + 16 * (block * kReverseChunks + thread);
  if (kFault == Fault::kMisalignedShared && faulty) to += 8;
  if (kFault == Fault::kSharedOutOfRange && faulty) to = shared + kReverseSharedBytes;
  if (kFault == Fault::kMisalignedGlobal && faulty) from += 4;
  if (kFault == Fault::kGlobalOutOfRange) from += 16;
  ptx::cp_async<16>(to, from, 16);
  ptx::cp_async_commit_group();
  if (kFault == Fault::kWaitTooWeak) ptx::cp_async_wait_group<1>();
  if (kFault != Fault::kNoWait && kFault != Fault::kWaitTooWeak) ptx::cp_async_wait_group<0>();
  if (kFault != Fault::kNoBarrier) ptx::bar_sync();

  const int mirrored = kReverseChunks - 1 - thread;
  const uint4 chunk = ptx::ld_shared_v4(shared + 16 * mirrored);
  reinterpret_cast<uint4*>(out)[block * kReverseChunks + thread] = chunk;
  if (kFault == Fault::kExitWithCopies) {
    ptx::cp_async<16>(to, from, 16);
    ptx::cp_async_commit_group();
  }
  if (kFault == Fault::kNoWait || kFault == Fault::kWaitTooWeak) {
    ptx::bar_sync();  // everyone has read; now the copies may land
    ptx::cp_async_wait_group<0>();
  }
}

// kBytes of `in` per thread to shared memory and on to `out`; only `present` of them are read.
template <int kBytes>
__global__ void partial_copy_probe(const uint8_t* in, int present, uint8_t* out) {
  const int thread = ptx::tid_x();
  uint8_t* const shared = ptx::dynamic_shared() + kBytes * thread;
  ptx::cp_async<kBytes>(shared, in + kBytes * thread, present);
  ptx::cp_async_commit_group();
  ptx::cp_async_wait_group<0>();
  for (int i = 0; i < kBytes; ++i) out[kBytes * thread + i] = shared[i];
}

}  // namespace padmarlin::probes
