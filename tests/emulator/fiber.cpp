// SPDX-License-Identifier: Apache-2.0
// Fibers for x86-64 Linux: a context switch of a few nanoseconds. ucontext would do, but makes two
// system calls per switch, and a launch switches some ten thousand times per tile.
#include "fiber.h"

#include <sys/mman.h>

#include <cstddef>
#include <new>
#include <vector>

#if !defined(__x86_64__)
#error "tests/emulator/fiber.cpp: the context switch is written for x86-64"
#endif

// System V ABI: rbp, rbx, r12..r15 survive a call; the caller keeps all the rest itself.
//   rdi: where to store the suspended stack pointer, rsi: the stack pointer to resume
extern "C" void padmarlin_switch_stack(void** suspended, void* resumed);
asm(R"(
.text
.globl padmarlin_switch_stack
.hidden padmarlin_switch_stack
.type padmarlin_switch_stack, @function
padmarlin_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size padmarlin_switch_stack, . - padmarlin_switch_stack
)");

namespace padmarlin::emulator {
namespace {

constexpr size_t kStackBytes = 256 * 1024;  // committed page by page, as it is touched
constexpr size_t kGuardBytes = 4096;        // below the stack: an overflow faults at once
constexpr int kSavedRegisters = 6;

std::vector<void*> idle_stacks;

void* take_stack() {
  if (!idle_stacks.empty()) {
    void* stack = idle_stacks.back();
    idle_stacks.pop_back();
    return stack;
  }
  void* memory = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  mprotect(memory, kGuardBytes, PROT_NONE);
  return static_cast<char*>(memory) + kGuardBytes;
}

}  // namespace

Fiber make_fiber(void (*entry)()) {
  void* stack = take_stack();
  // What padmarlin_switch_stack pops: the registers (their values do not matter), then `entry` as
  // the return address. Above it a null return address for `entry`, placed so that the stack is
  // aligned as after a call: 8 bytes below a multiple of 16.
  void** top = reinterpret_cast<void**>(static_cast<char*>(stack) + kStackBytes) - 1;
  *top = nullptr;
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < kSavedRegisters; ++i) *--top = nullptr;
  return {top, stack};
}

void recycle_fiber(Fiber& fiber) {
  idle_stacks.push_back(fiber.stack);
  fiber = {};
}

void switch_fiber(Fiber& from, const Fiber& to) {
  padmarlin_switch_stack(&from.stack_pointer, to.stack_pointer);
}

}  // namespace padmarlin::emulator
