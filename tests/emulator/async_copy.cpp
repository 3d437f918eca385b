// SPDX-License-Identifier: Apache-2.0
// cp.async: each thread's copies arrive at once or in the wait_group that guarantees them.
#include <cstring>

#include "machine.h"

namespace padmarlin::emulator {
namespace {

constexpr uint8_t kNotArrived = 0xff;  // NaN in fp16, bf16 and fp32

// The hardware reads and writes on the thread's behalf at any time from the issue of a copy to the
// wait that covers it: ThreadSanitizer is told at both ends.
void declare(const AsyncCopy& copy) {
  declare_read(copy.global, copy.source_bytes);
  declare_write(copy.shared, copy.bytes);
}

// The only place where a copy's bytes move.
void deliver(AsyncCopy& copy) {
  const Unobserved unobserved;
  copy.arrived = true;
  uint8_t* const shared = static_cast<uint8_t*>(copy.shared);
  std::memcpy(shared, copy.global, copy.source_bytes);
  std::memset(shared + copy.source_bytes, 0, copy.bytes - copy.source_bytes);
}

void check_source(const void* global, int bytes, int source_bytes) {
  const uintptr_t begin = reinterpret_cast<uintptr_t>(global);
  if (source_bytes < 0 || source_bytes > bytes) {
    fail("cp_async: source_bytes is " + std::to_string(source_bytes) + ", expected 0.." +
         std::to_string(bytes));
  }
  if (begin % bytes) {
    fail("cp_async: misaligned global address, expected a multiple of " + std::to_string(bytes) +
         ", got one " + std::to_string(begin % bytes) + " above");
  }
  if (source_bytes > 0) check_region("cp_async", global, source_bytes);
}

bool arrives_late() {
  switch (machine->options.delivery) {
    case Delivery::kEager:
      return false;
    case Delivery::kLate:
      return true;
    case Delivery::kRandom:
      return machine->random.one_in(2);
  }
  return false;
}

}  // namespace

void cp_async(void* shared, const void* global, int bytes, int source_bytes) {
  check_waited("cp_async");
  check_shared("cp_async", shared, bytes);
  check_source(global, bytes, source_bytes);
  Thread& thread = running_thread();
  AsyncCopy copy{shared, global, bytes, source_bytes, thread.committed_groups, false};
  declare(copy);
  const Unobserved unobserved;
  count_step();
  if (arrives_late()) {
    std::memset(shared, kNotArrived, bytes);
  } else {
    deliver(copy);
  }
  thread.copies.push_back(copy);
}

void cp_async_commit_group() { ++running_thread().committed_groups; }

void cp_async_wait_group(int pending) {
  Thread& thread = running_thread();
  auto& copies = thread.copies;
  while (!copies.empty() && copies.front().group + pending < thread.committed_groups) {
    declare(copies.front());
    const Unobserved unobserved;
    if (!copies.front().arrived) deliver(copies.front());
    copies.pop_front();
  }
  count_step();
  maybe_preempt();
}

}  // namespace padmarlin::emulator
