// SPDX-License-Identifier: Apache-2.0
// The state of one launch, shared by the runtime's sources. Kernels and launchers see runtime.h.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "bank_conflicts.h"
#include "core/layout.h"
#include "fiber.h"
#include "runtime.h"
#include "sanitizers.h"

namespace padmarlin::emulator {

struct Warp;
struct Block;

constexpr uint32_t kAllLanes = ~uint32_t{0};

// A cp.async that no wait_group has covered yet.
struct AsyncCopy {
  void* shared;
  const void* global;
  int bytes, source_bytes;
  int64_t group;  // of this thread, counted from 0
  bool arrived;   // its bytes already are where they belong
};

struct Thread {
  Fiber fiber;
  Block* block;
  Warp* warp;
  int index, lane;
  void* operands = nullptr;      // of the warp-wide instruction it waits in
  std::deque<AsyncCopy> copies;  // in order of issue
  int64_t committed_groups = 0;
  bool waited = false;  // for the kernel in front
};

struct Warp {
  Block* block;
  int index;
  std::array<Thread*, kWarp> lanes;
  // One bit per lane. A lane is ready, or waits in `instruction` or at the barrier, or has exited.
  uint32_t ready = kAllLanes, in_instruction = 0, at_barrier = 0, exited = 0;
  const char* instruction = nullptr;
  AccessLog accesses;  // since the last rendezvous
};

// bar.sync of some of the block's warps, by number.
struct NamedBarrier {
  int expected = 0;  // threads; of those that wait there
  std::vector<Thread*> waiting;
  char order[2];  // as Block::barrier
  int64_t passed = 0;
};

constexpr int kNamedBarriers = 16;

struct FreeDeleter {
  void operator()(void* memory) const { free(memory); }
};

struct Block {
  int x, y;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  std::unique_ptr<uint8_t[], FreeDeleter> shared;
  int live_threads, threads_at_barrier = 0;
  // What the barrier orders, for ThreadSanitizer. Two places, in turns: a thread that is already at
  // the next barrier must not be seen by one that has not left this one.
  char barrier[2];
  int64_t barriers_passed = 0;
  std::array<NamedBarrier, kNamedBarriers> named_barriers;
};

// xorshift64*: the schedule must be the same everywhere, so no std::uniform_int_distribution.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 0x2545f4914f6cdd1du) {}
  uint32_t below(uint32_t bound) {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return static_cast<uint32_t>((state_ * 0x2545f4914f6cdd1du >> 32) * bound >> 32);
  }
  bool one_in(uint32_t bound) { return below(bound) == 0; }

 private:
  uint64_t state_;
};

struct Machine {
  const LaunchShape& shape;
  const LaunchOptions& options;
  const std::function<void()>& kernel;
  Random random{options.seed};
  std::vector<std::unique_ptr<Block>> blocks;  // the resident ones
  std::vector<Warp*> warps;                    // of the resident blocks
  Fiber launcher;
  Thread* running = nullptr;  // null: the launcher
  std::string error;          // the first one ends the launch
  Statistics statistics;
  int64_t idle_steps = 0;  // since the last progress (count_step)

  bool seeded() const { return options.seed != 0; }
};

extern Machine* machine;  // the launch in progress

inline Thread& running_thread() { return *machine->running; }

// Ends the launch. Throws inside the thread's fiber; its entry catches.
[[noreturn]] void fail(const std::string& message);

// Runs other threads until somebody makes this one ready again.
void suspend();

// Called by every instruction that a loop may spin on. Ends the launch as a livelock if threads
// have executed very many of them without one leaving a barrier, a warp-wide instruction or the
// kernel; lets the others go first long before that.
void count_step();
inline void note_progress() { machine->idle_steps = 0; }

// With a seed: now and then lets other threads go first. Called wherever a thread touches what
// others may touch too.
void maybe_preempt();

// Throws unless [pointer, pointer + bytes) lies in the block's shared memory, aligned to `bytes`.
// Returns the offset.
uint32_t check_shared(const char* instruction, const void* pointer, int bytes);

// Throws if the running thread has not waited for the kernel in front, where it must.
void check_waited(const char* instruction);

// Throws unless the bytes lie in one of the registered regions, if any are.
void check_region(const char* instruction, const void* global, int bytes);

// All lanes of a warp meet: counts the accesses they made meanwhile.
void settle_accesses(Warp& warp);

// All lanes of the warp must call this with the same instruction. The last one to come runs
// `execute`, which finds each lane's operands in its Thread.
void rendezvous(const char* instruction, void* operands, void (*execute)(Warp&));

}  // namespace padmarlin::emulator
