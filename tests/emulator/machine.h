// SPDX-License-Identifier: Apache-2.0
// The state of one launch, shared by the runtime's sources. Kernels and launchers see runtime.h.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
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

// What ThreadSanitizer is told to be ordered by a barrier that is used again and again. Two places,
// in turns: a thread that is already at the next use must not be seen by one that has not left
// this.
struct Order {
  char places[2];
  char* of(int64_t use) { return &places[use % 2]; }
};

struct Thread {
  Fiber fiber;
  Block* block;
  Warp* warp;
  int index, lane;
  void* operands = nullptr;      // of the warp-wide instruction it waits in
  std::deque<AsyncCopy> copies;  // in order of issue
  int64_t committed_groups = 0;
  bool waited = false;              // for the kernel in front
  const void* waits_at = nullptr;   // what wait_at was called with
  const char* waits_for = nullptr;  // its name
};

// One warp's part of a wgmma that was issued. The registers are read when it is done, not before:
// they belong to it until then.
struct Wgmma {
  Dtype dtype;
  int columns;
  uint64_t b;
  bool accumulate;
  std::array<float*, kWarp> d;
  std::array<const uint32_t*, kWarp> a;
  int64_t group;
  bool done = false;
};

struct Warp {
  Block* block;
  int index;
  std::array<Thread*, kWarp> lanes;
  // One bit per lane. A lane is ready, or waits in `instruction`, at the barrier or in wait_at, or
  // has exited.
  uint32_t ready = kAllLanes, in_instruction = 0, at_barrier = 0, waiting = 0, exited = 0;
  const char* instruction = nullptr;
  AccessLog accesses;  // since the last rendezvous
  Order order = {};    // of syncwarp
  int64_t syncs_passed = 0;
  std::deque<Wgmma> wgmmas;  // that no wait has covered, in order of issue
  int64_t committed_wgmma_groups = 0;
  bool wgmma_fenced = false;  // since the registers of A were last free to be written
  int registers = 0;          // of each thread; of the block: free_registers
};

// An mbarrier, by its address in the block's shared memory.
struct Mbarrier {
  int arrivals, missing_arrivals;
  const Thread* initialized_by;
  bool fenced = false;  // the copy engine may see it
  int64_t missing_bytes = 0, phase = 0;
  Order order = {};
};

// A copy of the copy engine that no wait at its mbarrier has covered yet.
struct BulkCopy {
  const Thread* issued_by;
  Mbarrier* barrier;
  int64_t phase;
  int bytes;
  std::function<void()> move;  // its bytes; empty: they have arrived
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
  Order barrier_order = {};
  int64_t barriers_passed = 0;
  std::array<NamedBarrier, kNamedBarriers> named_barriers;
  std::map<uint32_t, Mbarrier> mbarriers;
  std::deque<BulkCopy> bulk_copies;  // in order of issue
  int free_registers = 0;            // given back by setmaxnreg
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

// "block (0, 0) thread 3: ", for messages.
std::string at_thread(const Thread& thread);

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

// Takes the running thread out of the schedule until another one wakes it; `what` for reports.
void wait_at(const void* at, const char* what);
// Puts the block's threads that wait there back into the schedule.
void wake(Block& block, const void* at);

// Throws unless [global, global + bytes) lies in a registered region, aligned.
void check_source(const char* instruction, const void* global, int bytes, int alignment);
// Whether a new copy's bytes come later than its issue.
bool arrives_late();

// Issues a copy of `bytes` that `move` will make.
void issue_bulk_copy(const char* instruction, uint64_t* barrier, void* shared, int bytes,
                     std::function<void()> move);
// Some copy of the copy engine that is under way arrives; false if there is none. What is wrong
// becomes the launch's error: this runs between threads.
bool deliver_bulk_copy();
// One line per mbarrier at which threads of the block wait: what it lacks.
std::string describe_mbarriers(const Block& block);
// Throws if the warp ends with wgmma groups that no wait has covered.
void check_wgmmas(const Warp& warp);
// Throws if copies were never waited for.
void check_bulk_copies(const Block& block);

// Where the 128-byte swizzle keeps the byte of that shared address: chunk ^= row % 8.
constexpr uint32_t swizzle_128(uint32_t address) { return address ^ (address >> 7 & 7) << 4; }

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
