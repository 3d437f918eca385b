// SPDX-License-Identifier: Apache-2.0
// Fibers for x86-64 Linux: a context switch of a few nanoseconds. ucontext would do, but makes two
// system calls per switch, and a launch switches some ten thousand times per tile.
#include "fiber.h"

#include <sys/mman.h>

#include <cstddef>
#include <new>
#include <vector>

#include "sanitizers.h"

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

// Of the operating system's thread that launches: AddressSanitizer wants to know where it returns.
const void* launcher_stack = nullptr;
size_t launcher_stack_bytes = 0;

void* take_stack() {
  if (!idle_stacks.empty()) {
    void* stack = idle_stacks.back();
    idle_stacks.pop_back();
    permit(stack, kStackBytes);  // the redzones of the frames that were forgotten there
    return stack;
  }
  void* memory = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  mprotect(memory, kGuardBytes, PROT_NONE);
  return static_cast<char*>(memory) + kGuardBytes;
}

}  // namespace

Fiber this_thread_as_fiber() {
  Fiber fiber;
#if defined(PADMARLIN_TSAN)
  fiber.tsan_fiber = __tsan_get_current_fiber();
#endif
  return fiber;
}

Fiber make_fiber(void (*entry)(), [[maybe_unused]] const char* name) {
  void* stack = take_stack();
  // What padmarlin_switch_stack pops: the registers (their values do not matter), then `entry` as
  // the return address. Above it a null return address for `entry`, placed so that the stack is
  // aligned as after a call: 8 bytes below a multiple of 16.
  void** top = reinterpret_cast<void**>(static_cast<char*>(stack) + kStackBytes) - 1;
  *top = nullptr;
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < kSavedRegisters; ++i) *--top = nullptr;
  Fiber fiber{top, stack};
#if defined(PADMARLIN_TSAN)
  fiber.tsan_fiber = __tsan_create_fiber(0);
  __tsan_set_fiber_name(fiber.tsan_fiber, name);
#endif
  return fiber;
}

void fiber_started() {
#if defined(__SANITIZE_ADDRESS__)
  const void* previous_stack;
  size_t bytes;
  __sanitizer_finish_switch_fiber(nullptr, &previous_stack, &bytes);
  if (launcher_stack == nullptr) {  // the first fiber of all is started by the launcher
    launcher_stack = previous_stack;
    launcher_stack_bytes = bytes;
  }
#endif
}

void recycle_fiber(Fiber& fiber) {
  idle_stacks.push_back(fiber.stack);
#if defined(PADMARLIN_TSAN)
  __tsan_destroy_fiber(fiber.tsan_fiber);
#endif
  fiber = {};
}

void switch_fiber(Fiber& from, const Fiber& to, [[maybe_unused]] bool from_ends) {
#if defined(__SANITIZE_ADDRESS__)
  void* fake_stack = nullptr;  // on the stack that is left, so there when it is resumed
  __sanitizer_start_switch_fiber(from_ends ? nullptr : &fake_stack,
                                 to.stack ? to.stack : launcher_stack,
                                 to.stack ? kStackBytes : launcher_stack_bytes);
#elif defined(PADMARLIN_TSAN)
  // The schedule is an accident: that one thread ran after another orders nothing.
  __tsan_switch_to_fiber(to.tsan_fiber, __tsan_switch_to_fiber_no_sync);
#endif
  padmarlin_switch_stack(&from.stack_pointer, to.stack_pointer);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
}

}  // namespace padmarlin::emulator
