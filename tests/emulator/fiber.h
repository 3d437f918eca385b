// SPDX-License-Identifier: Apache-2.0
// Fibers: stacks of their own that hand control to each other by name. No scheduler here.
#pragma once

namespace padmarlin::emulator {

struct Fiber {
  void* stack_pointer = nullptr;  // valid while the fiber does not run
  void* stack = nullptr;          // null: the operating system's thread
  void* tsan_fiber = nullptr;     // as ThreadSanitizer knows it
};

// The operating system's thread that calls this.
Fiber this_thread_as_fiber();

// A fiber that will run `entry`, which must not return and calls fiber_started first of all. The
// stack comes from a pool. `name` is for the reports of ThreadSanitizer.
Fiber make_fiber(void (*entry)(), const char* name);
void fiber_started();

// Gives the stack back. Whatever lived on it is forgotten, not destroyed.
void recycle_fiber(Fiber& fiber);

// Suspends `from`, the running fiber, and resumes `to`. The only place where stacks are exchanged:
// the sanitizers are told here. `from_ends`: nobody will resume it.
void switch_fiber(Fiber& from, const Fiber& to, bool from_ends = false);

}  // namespace padmarlin::emulator
