// SPDX-License-Identifier: Apache-2.0
// Fibers: stacks of their own that hand control to each other by name. No scheduler here.
#pragma once

namespace padmarlin::emulator {

struct Fiber {
  void* stack_pointer = nullptr;  // valid while the fiber does not run
  void* stack = nullptr;          // null: the operating system's thread
};

// A fiber that will run `entry`, which must not return. The stack comes from a pool.
Fiber make_fiber(void (*entry)());

// Gives the stack back. Whatever lived on it is forgotten, not destroyed.
void recycle_fiber(Fiber& fiber);

// Suspends `from`, the running fiber, and resumes `to`. The only place where stacks are exchanged:
// sanitizers that must know of that are told here.
void switch_fiber(Fiber& from, const Fiber& to);

}  // namespace padmarlin::emulator
