// SPDX-License-Identifier: Apache-2.0
// Warp-wide instructions and the block's barrier: who waits for whom, and what happens when all
// have come.
#include <cstring>

#include "float16.h"
#include "machine.h"

namespace padmarlin::emulator {

void rendezvous(const char* instruction, void* operands, void (*execute)(Warp&)) {
  const Unobserved unobserved;
  Thread& thread = running_thread();
  Warp& warp = *thread.warp;
  if (warp.exited) {
    fail(std::string(instruction) + ": lanes of the warp have exited before it");
  }
  if (warp.in_instruction && warp.instruction != instruction) {
    fail(std::string("divergence: at ") + instruction + " while other lanes wait in " +
         warp.instruction);
  }
  const uint32_t lane = 1u << thread.lane;
  warp.instruction = instruction;
  warp.in_instruction |= lane;
  warp.ready &= ~lane;
  thread.operands = operands;
  if (warp.in_instruction != kAllLanes) return suspend();
  warp.in_instruction = 0;
  warp.ready = kAllLanes;
  note_progress();
  settle_accesses(warp);
  execute(warp);
  maybe_preempt();
}

namespace {

void release_block(Block& block) {
  block.threads_at_barrier = 0;
  ++block.barriers_passed;
  note_progress();
  for (Warp& warp : block.warps) {
    warp.at_barrier = 0;
    warp.ready = kAllLanes;
    settle_accesses(warp);
  }
}

void wait_at_barrier() {
  const Unobserved unobserved;
  Thread& thread = running_thread();
  Block& block = *thread.block;
  if (block.live_threads != machine->shape.threads) {
    fail("bar_sync: threads of the block have exited before it");
  }
  const uint32_t lane = 1u << thread.lane;
  thread.warp->at_barrier |= lane;
  thread.warp->ready &= ~lane;
  if (++block.threads_at_barrier < machine->shape.threads) return suspend();
  release_block(block);
  maybe_preempt();
}

}  // namespace

void bar_sync() {
  Block& block = *running_thread().block;
  char* const order = block.barrier_order.of(block.barriers_passed);
  release(order);
  wait_at_barrier();
  acquire(order);
}

// ---- syncwarp

void syncwarp() {
  // Every lane's arrival is ordered before every lane's departure.
  Warp& warp = *running_thread().warp;
  char* const order = warp.order.of(warp.syncs_passed);
  release(order);
  rendezvous("syncwarp", nullptr, [](Warp& all) { ++all.syncs_passed; });
  acquire(order);
}

// ---- elect.sync

bool elect_sync() {
  bool elected = false;
  rendezvous("elect_sync", &elected, [](Warp& warp) {
    // Which lane it is, the hardware does not promise.
    const int lane = machine->seeded() ? machine->random.below(kWarp) : 0;
    *static_cast<bool*>(warp.lanes[lane]->operands) = true;
  });
  return elected;
}

// ---- shfl.sync.idx

namespace {

struct ShflOperands {
  int value, source, result;
};

}  // namespace

int shfl(int value, int source) {
  ShflOperands operands{value, source, 0};
  rendezvous("shfl", &operands, [](Warp& warp) {
    for (Thread* const lane : warp.lanes) {
      auto& own = *static_cast<ShflOperands*>(lane->operands);
      own.result = static_cast<ShflOperands*>(warp.lanes[own.source & 31]->operands)->value;
    }
  });
  return operands.result;
}

// ---- barriers of some warps

namespace {

void check_named_barrier(const NamedBarrier& barrier, int id, int threads) {
  const std::string name = "bar_sync " + std::to_string(id);
  if (id < 1 || id >= kNamedBarriers)
    fail(name + ": expected a barrier 1.." + std::to_string(kNamedBarriers - 1));
  if (threads <= 0 || threads % kWarp || threads > machine->shape.threads) {
    fail(name + ": " + std::to_string(threads) + " threads, expected whole warps of the block");
  }
  if (!barrier.waiting.empty() && barrier.expected != threads) {
    fail(name + ": for " + std::to_string(threads) + " threads, others wait there for " +
         std::to_string(barrier.expected));
  }
}

void wait_at_named_barrier(NamedBarrier& barrier, int threads) {
  const Unobserved unobserved;
  Thread& thread = running_thread();
  barrier.expected = threads;
  barrier.waiting.push_back(&thread);
  if (static_cast<int>(barrier.waiting.size()) < threads) {
    thread.warp->at_barrier |= 1u << thread.lane;
    thread.warp->ready &= ~(1u << thread.lane);
    return suspend();
  }
  for (Thread* waiting : barrier.waiting) {
    waiting->warp->at_barrier &= ~(1u << waiting->lane);
    waiting->warp->ready |= 1u << waiting->lane;
    settle_accesses(*waiting->warp);
  }
  barrier.waiting.clear();
  ++barrier.passed;
  note_progress();
  maybe_preempt();
}

}  // namespace

void named_bar_sync(int id, int threads) {
  Block& block = *running_thread().block;
  NamedBarrier& barrier = block.named_barriers[id < 0 || id >= kNamedBarriers ? 0 : id];
  {
    const Unobserved unobserved;
    check_named_barrier(barrier, id, threads);
  }
  char* const order = &barrier.order[barrier.passed % 2];
  release(order);
  wait_at_named_barrier(barrier, threads);
  acquire(order);
}

// ---- ldmatrix

namespace {

constexpr int kRowBytes = 16;  // of an 8 x 8 matrix of 16-bit elements

struct LdmatrixOperands {
  uint32_t* fragment;
  const uint8_t* row;
  uint32_t address;
};

void execute_ldmatrix(Warp& warp) {
  LaneAddresses addresses;
  for (int lane = 0; lane < kWarp; ++lane) {
    const auto& own = *static_cast<LdmatrixOperands*>(warp.lanes[lane]->operands);
    addresses[lane] = own.address;
    const int row = lane / 4, word = lane % 4;
    for (int matrix = 0; matrix < 4; ++matrix) {
      const Thread& owner = *warp.lanes[8 * matrix + row];
      const auto& source = *static_cast<LdmatrixOperands*>(owner.operands);
      std::memcpy(&own.fragment[matrix], source.row + 4 * word, 4);
    }
  }
  SharedAccesses& count = machine->statistics["ldmatrix_x4"];
  ++count.instructions;
  count.extra_wavefronts += extra_wavefronts(addresses, kAllLanes, kRowBytes);
}

// ---- stmatrix

struct StmatrixOperands {
  uint8_t* row;
  const uint32_t* fragment;
  uint32_t address;
};

void execute_stmatrix(Warp& warp) {
  LaneAddresses addresses;
  for (int lane = 0; lane < kWarp; ++lane) {
    const auto& own = *static_cast<StmatrixOperands*>(warp.lanes[lane]->operands);
    addresses[lane] = own.address;
    const int matrix = lane / 8, column = lane % 8;
    for (int g = 0; g < 8; ++g) {
      const Thread& owner = *warp.lanes[4 * g + column / 2];
      const auto& source = *static_cast<StmatrixOperands*>(owner.operands);
      const auto element = static_cast<uint16_t>(source.fragment[matrix] >> column % 2 * 16);
      std::memcpy(own.row + 2 * g, &element, 2);
    }
  }
  SharedAccesses& count = machine->statistics["stmatrix_x4_trans"];
  ++count.instructions;
  count.extra_wavefronts += extra_wavefronts(addresses, kAllLanes, kRowBytes);
}

// ---- mma

struct MmaOperands {
  float* d;
  const uint32_t* a;
  const uint32_t* b;
};

template <Dtype kDtype>
void unpack(uint32_t word, float& low, float& high) {
  low = to_float<kDtype>(static_cast<uint16_t>(word));
  high = to_float<kDtype>(static_cast<uint16_t>(word >> 16));
}

// The fragment maps are spelled out in csrc/cuda/ptx/mma.cuh. Products are exact in float; the
// order of the hardware's additions is unknown, here k ascends.
template <Dtype kDtype>
void execute_mma(Warp& warp) {
  float a[16][16], bt[16][8], d[16][8] = {};  // row x k, k x column, row x column
  for (int lane = 0; lane < kWarp; ++lane) {
    const auto& own = *static_cast<MmaOperands*>(warp.lanes[lane]->operands);
    const int g = lane / 4, k = lane % 4 * 2;
    for (int i = 0; i < 4; ++i) {
      float* const pair = &a[g + i % 2 * 8][k + i / 2 * 8];
      unpack<kDtype>(own.a[i], pair[0], pair[1]);
    }
    for (int i = 0; i < 2; ++i) unpack<kDtype>(own.b[i], bt[k + i * 8][g], bt[k + i * 8 + 1][g]);
  }
  for (int row = 0; row < 16; ++row) {
    for (int k = 0; k < 16; ++k) {
      for (int column = 0; column < 8; ++column) d[row][column] += a[row][k] * bt[k][column];
    }
  }
  for (int lane = 0; lane < kWarp; ++lane) {
    const auto& own = *static_cast<MmaOperands*>(warp.lanes[lane]->operands);
    const int g = lane / 4, column = lane % 4 * 2;
    for (int i = 0; i < 4; ++i) own.d[i] += d[g + i / 2 * 8][column + i % 2];
  }
}

}  // namespace

void ldmatrix_x4(uint32_t (&fragment)[4], const void* row) {
  const uint32_t address = check_shared("ldmatrix_x4", row, kRowBytes);
  declare_read(row, kRowBytes);
  LdmatrixOperands operands{fragment, static_cast<const uint8_t*>(row), address};
  rendezvous("ldmatrix_x4", &operands, execute_ldmatrix);
}

void stmatrix_x4_trans(void* row, const uint32_t (&fragment)[4]) {
  const uint32_t address = check_shared("stmatrix_x4_trans", row, kRowBytes);
  declare_write(row, kRowBytes);
  StmatrixOperands operands{static_cast<uint8_t*>(row), fragment, address};
  rendezvous("stmatrix_x4_trans", &operands, execute_stmatrix);
}

void mma_m16n8k16(Dtype dtype, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  MmaOperands operands{d, a, b};
  rendezvous("mma_m16n8k16", &operands,
             dtype == Dtype::kHalf ? execute_mma<Dtype::kHalf> : execute_mma<Dtype::kBfloat16>);
}

}  // namespace padmarlin::emulator
