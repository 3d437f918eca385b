// SPDX-License-Identifier: Apache-2.0
// mbarriers and the copy engine: copies arrive at once, or when nobody can go on without them.
#include <cstring>

#include "machine.h"

namespace padmarlin::emulator {
namespace {

constexpr uint8_t kNotArrived = 0xff;           // NaN in fp16, bf16 and fp32
constexpr uint64_t kLive = 0x6d62617272696572;  // what stands in memory while a barrier lives
constexpr int kMaxAnnounced = (1 << 20) - 1;
constexpr int kMaxArrivals = (1 << 20) - 1;

std::string at(const Mbarrier& barrier, const Block& block) {
  for (const auto& [address, candidate] : block.mbarriers) {
    if (&candidate == &barrier) return "the mbarrier at " + std::to_string(address);
  }
  return "an mbarrier";
}

Mbarrier& find(const char* instruction, const uint64_t* barrier) {
  const uint32_t address = check_shared(instruction, barrier, sizeof *barrier);
  auto& all = running_thread().block->mbarriers;
  const auto found = all.find(address);
  if (found == all.end()) {
    fail(std::string(instruction) + ": no mbarrier_init has made an mbarrier at " +
         std::to_string(address));
  }
  uint64_t content;
  std::memcpy(&content, barrier, sizeof content);
  if (content != kLive) {
    fail(std::string(instruction) + ": " + at(found->second, *running_thread().block) +
         " was overwritten");
  }
  return found->second;
}

// Returns what is wrong, if anything.
std::string end_phase_if_complete(Mbarrier& barrier, Block& block) {
  if (barrier.missing_arrivals > 0 || barrier.missing_bytes != 0) return "";
  for (const BulkCopy& copy : block.bulk_copies) {
    if (copy.barrier == &barrier && copy.move) {
      return at(barrier, block) + " completes a phase while a copy of " +
             std::to_string(copy.bytes) + " bytes is under way: expect_tx announced too few";
    }
  }
  ++barrier.phase;
  barrier.missing_arrivals = barrier.arrivals;
  wake(block, &barrier);
  return "";
}

std::string deliver(BulkCopy& copy, Block& block) {
  const Unobserved unobserved;
  copy.move();
  copy.move = nullptr;
  Mbarrier& barrier = *copy.barrier;
  barrier.missing_bytes -= copy.bytes;
  note_progress();
  if (barrier.missing_bytes < 0) {
    return std::to_string(copy.bytes) + " bytes arrive at " + at(barrier, block) + ", " +
           std::to_string(-barrier.missing_bytes) + " more than expect_tx has announced";
  }
  return end_phase_if_complete(barrier, block);
}

void fail_if(const std::string& wrong) {
  if (!wrong.empty()) fail(wrong);
}

// For a phase that some arrival still has to end.
void announce(const char* instruction, Mbarrier& barrier, const Block& block, int bytes) {
  if (bytes < 0 || bytes > kMaxAnnounced) {
    fail(std::string(instruction) + ": announces " + std::to_string(bytes) +
         " bytes, expected 0.." + std::to_string(kMaxAnnounced));
  }
  if (barrier.missing_arrivals == 0) {
    fail(std::string(instruction) + ": " + at(barrier, block) + " has all of its " +
         std::to_string(barrier.arrivals) + " arrivals already");
  }
  barrier.missing_bytes += bytes;
}

}  // namespace

void mbarrier_init(uint64_t* barrier, int arrivals) {
  const uint32_t address = check_shared("mbarrier_init", barrier, sizeof *barrier);
  Thread& thread = running_thread();
  declare_write(barrier, sizeof *barrier);
  const Unobserved unobserved;
  if (arrivals < 1 || arrivals > kMaxArrivals) {
    fail("mbarrier_init: arrivals is " + std::to_string(arrivals) + ", expected 1.." +
         std::to_string(kMaxArrivals));
  }
  std::memcpy(barrier, &kLive, sizeof kLive);
  const auto [place, is_new] =
      thread.block->mbarriers.insert({address, Mbarrier{arrivals, arrivals, &thread}});
  if (!is_new) fail("mbarrier_init: " + at(place->second, *thread.block) + " exists already");
}

void fence_mbarrier_init() {
  const Unobserved unobserved;
  const Thread& thread = running_thread();
  for (auto& [address, barrier] : thread.block->mbarriers) {
    if (barrier.initialized_by == &thread) barrier.fenced = true;
  }
}

void mbarrier_arrive(uint64_t* barrier, int bytes) {
  declare_read(barrier, sizeof *barrier);
  Mbarrier& found = find("mbarrier_arrive", barrier);
  release(found.order.of(found.phase));
  const Unobserved unobserved;
  Block& block = *running_thread().block;
  count_step();
  announce("mbarrier_arrive", found, block, bytes);
  --found.missing_arrivals;
  fail_if(end_phase_if_complete(found, block));
  maybe_preempt();
}

void mbarrier_expect_tx(uint64_t* barrier, int bytes) {
  declare_read(barrier, sizeof *barrier);
  Mbarrier& found = find("mbarrier_expect_tx", barrier);
  const Unobserved unobserved;
  count_step();
  announce("mbarrier_expect_tx", found, *running_thread().block, bytes);
  maybe_preempt();
}

void mbarrier_wait_parity(uint64_t* barrier, int parity) {
  declare_read(barrier, sizeof *barrier);
  Mbarrier& found = find("mbarrier_wait_parity", barrier);
  {
    const Unobserved unobserved;
    if (parity != 0 && parity != 1) {
      fail("mbarrier_wait_parity: parity is " + std::to_string(parity) + ", expected 0 or 1");
    }
    count_step();
    maybe_preempt();
    while (found.phase % 2 == parity) wait_at(&found, "an mbarrier");
    std::erase_if(running_thread().block->bulk_copies, [&](const BulkCopy& copy) {
      return copy.barrier == &found && copy.phase < found.phase;
    });
  }
  acquire(found.order.of(parity));
}

// ---- copies

void issue_bulk_copy(const char* instruction, uint64_t* barrier, void* shared, int bytes,
                     std::function<void()> move) {
  check_waited(instruction);
  Block& block = *running_thread().block;
  Mbarrier& found = find(instruction, barrier);
  declare_write(shared, bytes);
  release(found.order.of(found.phase));
  const Unobserved unobserved;
  count_step();
  if (!found.fenced) {
    fail(std::string(instruction) + ": no fence_mbarrier_init has shown " + at(found, block) +
         " to the copy engine");
  }
  block.bulk_copies.push_back({&running_thread(), &found, found.phase, bytes, std::move(move)});
  if (arrives_late()) {
    std::memset(shared, kNotArrived, bytes);
  } else {
    fail_if(deliver(block.bulk_copies.back(), block));
  }
  maybe_preempt();
}

void bulk_copy(void* shared, const void* global, int bytes, uint64_t* barrier) {
  constexpr int kUnit = 16;
  if (bytes <= 0 || bytes % kUnit) {
    fail("bulk_copy: " + std::to_string(bytes) + " bytes, expected a multiple of " +
         std::to_string(kUnit));
  }
  check_shared("bulk_copy", shared, kUnit);
  check_shared("bulk_copy", static_cast<uint8_t*>(shared) + bytes - kUnit, kUnit);
  check_source("bulk_copy", global, bytes, kUnit);
  declare_read(global, bytes);
  issue_bulk_copy("bulk_copy", barrier, shared, bytes, [=] { std::memcpy(shared, global, bytes); });
}

bool deliver_bulk_copy() {
  const Unobserved unobserved;
  std::vector<std::pair<BulkCopy*, Block*>> under_way;
  for (const auto& block : machine->blocks) {
    for (BulkCopy& copy : block->bulk_copies) {
      if (copy.move) under_way.push_back({&copy, block.get()});
    }
  }
  if (under_way.empty()) return false;
  // In order of issue, or with a seed in any: the engine promises none.
  const size_t chosen = machine->seeded() ? machine->random.below(under_way.size()) : 0;
  const auto& [copy, block] = under_way[chosen];
  const std::string wrong = deliver(*copy, *block);
  if (!wrong.empty()) machine->error = at_thread(*copy->issued_by) + wrong;
  return true;
}

std::string describe_mbarriers(const Block& block) {
  std::string text;
  for (const auto& [address, barrier] : block.mbarriers) {
    for (const Thread& thread : block.threads) {
      if (!(thread.warp->waiting >> thread.lane & 1) || thread.waits_at != &barrier) continue;
      text += "\n  block (" + std::to_string(block.x) + ", " + std::to_string(block.y) +
              "): the mbarrier at " + std::to_string(address) + " lacks " +
              std::to_string(barrier.missing_arrivals) + " arrivals and " +
              std::to_string(barrier.missing_bytes) + " bytes";
      break;
    }
  }
  return text;
}

void check_bulk_copies(const Block& block) {
  if (block.bulk_copies.empty()) return;
  fail("the block ends with " + std::to_string(block.bulk_copies.size()) +
       " bulk copies that no wait at an mbarrier has covered");
}

}  // namespace padmarlin::emulator
