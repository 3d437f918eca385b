// SPDX-License-Identifier: Apache-2.0
// Launches: blocks become resident, their threads take turns, and what ends badly is reported.
#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>

#include "machine.h"

namespace padmarlin::emulator {

Machine* machine = nullptr;

namespace {

constexpr size_t kMaxSharedBytes = 227 * 1024;  // of one block, sm_90 (sm_80: 163 KB)
constexpr size_t kSharedAlignment = 1024;
constexpr int kBlockRegisters = 64 * 1024;  // what __launch_bounds__(threads, 1) leaves a block
constexpr uint8_t kPoison = 0xff;           // NaN in fp16, bf16 and fp32; -1 as an index

// ---- who runs next

Fiber& fiber_of(Thread* thread) { return thread ? thread->fiber : machine->launcher; }

void switch_to(Thread* next) {
  Thread* const previous = machine->running;
  if (next == previous) return;
  machine->running = next;
  const bool previous_ends = previous && previous->warp->exited >> previous->lane & 1;
  switch_fiber(fiber_of(previous), fiber_of(next), previous_ends);
}

// The first ready thread after the running one, round and round: everyone's turn comes.
Thread* next_in_turn() {
  const auto& warps = machine->warps;
  const Thread& thread = *machine->running;
  const auto own = std::find(warps.begin(), warps.end(), thread.warp);
  const auto ready_from = [](const Warp& warp, int lane) -> Thread* {
    const uint32_t ready = lane < kWarp ? warp.ready >> lane << lane : 0;
    return ready ? warp.lanes[std::countr_zero(ready)] : nullptr;
  };
  if (Thread* next = ready_from(**own, thread.lane + 1)) return next;
  const size_t count = warps.size(), first = own - warps.begin();
  for (size_t i = 1; i <= count; ++i) {
    if (Thread* next = ready_from(*warps[(first + i) % count], 0)) return next;
  }
  return nullptr;
}

Thread* choose_lane(const Warp& warp) {
  const int turn = machine->seeded() ? machine->random.below(kWarp) : 0;
  return warp.lanes[(std::countr_zero(std::rotr(warp.ready, turn)) + turn) % kWarp];
}

// Stays in the running warp while it can, as a real scheduler's threads run in step; a seed makes
// it jump to another one from time to time. Null if nobody is ready.
Thread* choose_ready_thread() {
  constexpr uint32_t kTurnsPerWarp = 8;
  const Warp* const warp = machine->running ? machine->running->warp : nullptr;
  const bool jump = machine->seeded() && machine->random.one_in(kTurnsPerWarp);
  if (warp && warp->ready && !jump) return choose_lane(*warp);

  const size_t count = machine->warps.size();
  const size_t first = machine->seeded() ? machine->random.below(count) : 0;
  for (size_t i = 0; i < count; ++i) {
    const Warp& candidate = *machine->warps[(first + i) % count];
    if (candidate.ready) return choose_lane(candidate);
  }
  return nullptr;
}

// Late copies of the copy engine arrive when nobody can go on without them. Null ends the launch.
Thread* choose_thread() {
  while (machine->error.empty()) {
    if (Thread* thread = choose_ready_thread()) return thread;
    if (!deliver_bulk_copy()) break;
  }
  return nullptr;
}

// ---- the life of a thread

void retire(Thread& thread) {
  Warp& warp = *thread.warp;
  if (warp.in_instruction) {
    fail(std::string("exits while lanes of its warp wait in ") + warp.instruction);
  }
  if (thread.block->threads_at_barrier) fail("exits while threads of its block wait at bar_sync");
  if (!thread.copies.empty()) {
    fail("exits with " + std::to_string(thread.copies.size()) +
         " cp.async copies that no wait_group has covered");
  }
  const uint32_t lane = 1u << thread.lane;
  warp.ready &= ~lane;
  warp.exited |= lane;
  note_progress();
  --thread.block->live_threads;
  if (warp.exited == kAllLanes) {
    settle_accesses(warp);
    check_wgmmas(warp);
  }
  if (thread.block->live_threads == 0) check_bulk_copies(*thread.block);
}

// The first frame of every fiber. Exceptions stop here: no unwinder can go further, and the
// launcher rethrows on its own stack.
void run_thread() {
  fiber_started();
  Thread& thread = running_thread();
  try {
    machine->kernel();
    release(thread.block);
    const Unobserved unobserved;
    retire(thread);
  } catch (const std::exception& error) {
    const Unobserved unobserved;
    machine->error = at_thread(thread) + error.what();
  }
  const bool block_done = thread.block->live_threads == 0;
  switch_to(block_done || !machine->error.empty() ? nullptr : choose_thread());
  std::abort();  // a thread that has ended is never chosen again
}

// ---- the life of a block

void start_block(int x, int y) {
  const LaunchShape& shape = machine->shape;
  auto block = std::make_unique<Block>();
  block->x = x;
  block->y = y;
  block->live_threads = shape.threads;

  // Exactly as many bytes as the kernel has: AddressSanitizer guards what follows.
  const size_t bytes = std::max<size_t>(shape.shared_bytes, 1);
  void* shared = nullptr;
  if (posix_memalign(&shared, kSharedAlignment, bytes) != 0) throw std::bad_alloc();
  block->shared.reset(static_cast<uint8_t*>(shared));
  std::memset(shared, kPoison, bytes);

  block->threads.resize(shape.threads);
  block->warps.resize(shape.threads / kWarp);
  for (int i = 0; i < shape.threads; ++i) {
    Thread& thread = block->threads[i];
    thread.block = block.get();
    thread.warp = &block->warps[i / kWarp];
    thread.index = i;
    thread.lane = i % kWarp;
    thread.warp->lanes[thread.lane] = &thread;
    thread.fiber = make_fiber(run_thread, at_thread(thread).c_str());
  }
  for (int i = 0; i < static_cast<int>(block->warps.size()); ++i) {
    block->warps[i].block = block.get();
    block->warps[i].index = i;
    block->warps[i].registers = kBlockRegisters / shape.threads / 8 * 8;
    machine->warps.push_back(&block->warps[i]);
  }
  machine->blocks.push_back(std::move(block));
}

void end_block(Block& block) {
  acquire(&block);
  for (Thread& thread : block.threads) recycle_fiber(thread.fiber);
  std::erase_if(machine->warps, [&](const Warp* warp) { return warp->block == &block; });
}

void end_finished_blocks() {
  std::erase_if(machine->blocks, [](const std::unique_ptr<Block>& block) {
    if (block->live_threads > 0) return false;
    end_block(*block);
    return true;
  });
}

// ---- reports

std::string describe_wait(const Warp& warp) {
  const int first = warp.index * kWarp;
  std::string text = "\n  block (" + std::to_string(warp.block->x) + ", " +
                     std::to_string(warp.block->y) + ") threads " + std::to_string(first) + ".." +
                     std::to_string(first + kWarp - 1) + ":";
  const auto add = [&](uint32_t lanes, const std::string& what) {
    char mask[16];
    std::snprintf(mask, sizeof mask, "0x%08x", lanes);
    if (lanes) text += std::string(" lanes ") + mask + " " + what + ";";
  };
  add(warp.at_barrier, "wait at bar_sync");
  if (warp.in_instruction) add(warp.in_instruction, std::string("wait in ") + warp.instruction);
  if (warp.waiting) {
    const Thread& first_waiting = *warp.lanes[std::countr_zero(warp.waiting)];
    add(warp.waiting, std::string("wait at ") + first_waiting.waits_for);
  }
  add(warp.exited, "have exited");
  return text;
}

std::string describe_deadlock() {
  std::string message = "deadlock: no thread can go on";
  for (const Warp* warp : machine->warps) message += describe_wait(*warp);
  for (const auto& block : machine->blocks) message += describe_mbarriers(*block);
  return message;
}

void check_shape(const LaunchShape& shape) {
  const auto refuse = [&](const std::string& what) {
    throw LaunchError(std::string(shape.kernel) + ": " + what);
  };
  if (shape.threads <= 0 || shape.threads > 1024 || shape.threads % kWarp) {
    refuse("blocks of " + std::to_string(shape.threads) +
           " threads, expected whole warps, at most 1024 threads");
  }
  if (shape.grid_x <= 0 || shape.grid_y <= 0 || shape.grid_y > 65535) {
    refuse("grid (" + std::to_string(shape.grid_x) + ", " + std::to_string(shape.grid_y) +
           "), expected 1 <= x and 1 <= y <= 65535");
  }
  if (shape.shared_bytes > kMaxSharedBytes) {
    refuse(std::to_string(shape.shared_bytes) + " bytes of shared memory, expected at most " +
           std::to_string(kMaxSharedBytes));
  }
}

// In order, or with a seed in any order: the hardware promises none.
std::vector<int> block_order(int count) {
  std::vector<int> order(count);
  std::iota(order.begin(), order.end(), 0);
  if (machine->seeded()) {
    for (int i = count - 1; i > 0; --i) std::swap(order[i], order[machine->random.below(i + 1)]);
  }
  return order;
}

void run_grid() {
  const LaunchShape& shape = machine->shape;
  const size_t resident = std::max(machine->options.resident_blocks, 1);
  const std::vector<int> order = block_order(shape.grid_x * shape.grid_y);
  for (size_t next = 0; machine->error.empty();) {
    for (; next < order.size() && machine->blocks.size() < resident; ++next) {
      start_block(order[next] % shape.grid_x, order[next] / shape.grid_x);
    }
    if (machine->blocks.empty()) return;
    if (Thread* thread = choose_thread()) {
      switch_to(thread);
      end_finished_blocks();
    } else if (machine->error.empty()) {
      machine->error = describe_deadlock();
    }
  }
}

}  // namespace

std::string at_thread(const Thread& thread) {
  return "block (" + std::to_string(thread.block->x) + ", " + std::to_string(thread.block->y) +
         ") thread " + std::to_string(thread.index) + ": ";
}

void fail(const std::string& message) { throw std::runtime_error(message); }

void suspend() { switch_to(choose_thread()); }

void wait_at(const void* at, const char* what) {
  Thread& thread = running_thread();
  const uint32_t lane = 1u << thread.lane;
  thread.waits_at = at;
  thread.waits_for = what;
  thread.warp->waiting |= lane;
  thread.warp->ready &= ~lane;
  suspend();
}

void wake(Block& block, const void* at) {
  note_progress();
  for (Thread& thread : block.threads) {
    const uint32_t lane = 1u << thread.lane;
    if (!(thread.warp->waiting & lane) || thread.waits_at != at) continue;
    thread.warp->waiting &= ~lane;
    thread.warp->ready |= lane;
  }
}

void count_step() {
  // A block takes some ten thousand steps from its start to its first barrier, which ends the
  // copies of three stages; 2^22 are the steps of some four hundred such blocks, in a fraction of
  // a second.
  constexpr int64_t kMaxIdleSteps = 1 << 22, kStepsPerTurn = 1 << 12;
  const int64_t step = ++machine->idle_steps;
  if (step > kMaxIdleSteps) {
    fail("livelock: " + std::to_string(kMaxIdleSteps) +
         " instructions without a barrier or a warp-wide instruction completed");
  }
  if (step % kStepsPerTurn == 0) {
    // Whoever spins may do so for what a copy brings.
    deliver_bulk_copy();
    switch_to(machine->error.empty() ? next_in_turn() : nullptr);
  }
}

void maybe_preempt() {
  constexpr uint32_t kAccessesPerPreemption = 16;
  if (machine->options.delivery == Delivery::kRandom &&
      machine->random.one_in(kAccessesPerPreemption)) {
    deliver_bulk_copy();
    if (!machine->error.empty()) suspend();
  }
  if (machine->seeded() && machine->random.one_in(kAccessesPerPreemption)) suspend();
}

Statistics launch(const LaunchShape& shape, const LaunchOptions& options,
                  const std::function<void()>& kernel) {
  check_shape(shape);
  Machine launched{shape, options, kernel};
  machine = &launched;
  launched.launcher = this_thread_as_fiber();
  run_grid();
  for (const auto& block : launched.blocks) end_block(*block);
  machine = nullptr;
  if (!launched.error.empty()) {
    throw LaunchError(std::string(shape.kernel) + ": " + launched.error);
  }
  return launched.statistics;
}

int tid_x() { return running_thread().index; }
int ctaid_x() { return running_thread().block->x; }
int ctaid_y() { return running_thread().block->y; }

#if defined(__SANITIZE_ADDRESS__)

// AddressSanitizer's own report does not know of blocks and threads.
static void name_running_thread() {
  if (!machine || !machine->running) return;
  std::fprintf(stderr, "%s: %sthe sanitizer's report is about this thread\n", machine->shape.kernel,
               at_thread(*machine->running).c_str());
}

#endif

}  // namespace padmarlin::emulator

#if defined(__SANITIZE_ADDRESS__)
void __asan_on_error() { padmarlin::emulator::name_running_thread(); }
void __ubsan_on_report() { padmarlin::emulator::name_running_thread(); }
#endif
