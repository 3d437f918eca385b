// SPDX-License-Identifier: Apache-2.0
// Shared memory as kernels see it: addresses checked, accesses logged. Global memory: regions,
// atomics, what a kernel may do before the one in front has ended.
#include <algorithm>

#include "machine.h"

namespace padmarlin::emulator {

uint8_t* dynamic_shared() { return running_thread().block->shared.get(); }

uint32_t shared_address(const void* pointer) { return check_shared("shared_address", pointer, 1); }

uint32_t check_shared(const char* instruction, const void* pointer, int bytes) {
  const int64_t offset = static_cast<int64_t>(reinterpret_cast<uintptr_t>(pointer) -
                                              reinterpret_cast<uintptr_t>(dynamic_shared()));
  const int64_t size = static_cast<int64_t>(machine->shape.shared_bytes);
  if (offset < 0 || offset + bytes > size) {
    fail(std::string(instruction) + ": shared address " + std::to_string(offset) + " + " +
         std::to_string(bytes) + " bytes is out of range, the block has " + std::to_string(size));
  }
  if (offset % bytes) {
    fail(std::string(instruction) + ": shared address " + std::to_string(offset) +
         " is misaligned, expected a multiple of " + std::to_string(bytes));
  }
  return static_cast<uint32_t>(offset);
}

void access_shared(const char* instruction, const void* pointer, int bytes) {
  Thread& thread = running_thread();
  const uint32_t address = check_shared(instruction, pointer, bytes);
  const Unobserved unobserved;
  count_step();
  if (thread.warp->accesses.is_full()) settle_accesses(*thread.warp);
  // The twins are inlined, so this is the place in the kernel, the same for all lanes.
  const void* const site = __builtin_return_address(0);
  thread.warp->accesses.add(instruction, site, thread.lane, address, bytes);
  maybe_preempt();
}

void check_waited(const char* instruction) {
  if (!machine->options.overlaps_previous || running_thread().waited) return;
  fail(std::string(instruction) +
       ": before griddepcontrol_wait, the kernel in front may still run");
}

void check_region(const char* instruction, const void* global, int bytes) {
  const auto& regions = machine->options.regions;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(global);
  const auto holds = [&](const Region& region) {
    return begin >= region.begin && begin + bytes <= region.begin + region.bytes;
  };
  if (regions.empty() || std::any_of(regions.begin(), regions.end(), holds)) return;
  std::string message = std::string(instruction) + ": reads " + std::to_string(bytes) +
                        " bytes outside the registered global regions; relative to them:";
  for (const Region& region : regions) {
    message += " " + std::to_string(static_cast<int64_t>(begin - region.begin)) + " of " +
               std::to_string(region.bytes) + ";";
  }
  fail(message);
}

void griddepcontrol_wait() { running_thread().waited = true; }

void prefetch_l2(const void* global) {
  const Unobserved unobserved;
  check_region("prefetch_l2", global, 1);
}

// Threads take turns between instructions only, so the steps below are one. Other threads may run
// before it: who comes last is for the schedule to say.
uint32_t atom_inc(uint32_t* address, uint32_t bound, bool acquires, bool releases) {
  check_waited("atom_inc");
  {
    const Unobserved unobserved;
    count_step();
    maybe_preempt();
  }
  if (releases) release(address);
  const uint32_t old = *address;
  *address = old >= bound ? 0 : old + 1;
  if (acquires) acquire(address);
  return old;
}

void settle_accesses(Warp& warp) { warp.accesses.settle(machine->statistics); }

}  // namespace padmarlin::emulator
