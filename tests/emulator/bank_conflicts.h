// SPDX-License-Identifier: Apache-2.0
// Shared memory has 32 banks of 4 bytes. How often must the hardware go there for one instruction?
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "core/layout.h"
#include "runtime.h"

namespace padmarlin::emulator {

using LaneAddresses = std::array<uint32_t, kWarp>;

// Wavefronts beyond the first of each phase, for the lanes in `active`, each accessing `bytes`
// (4, 8 or 16) at a byte address of shared memory. A phase is the run of lanes whose accesses
// together are 128 bytes: the warp, half a warp or a quarter.
int extra_wavefronts(const LaneAddresses& addresses, uint32_t active, int bytes);

// Puts together the lanes of one warp's loads and stores, which come one lane at a time: a lane
// belongs to the oldest instruction of the same call site that it is not yet part of.
class AccessLog {
 public:
  void add(const char* instruction, const void* site, int lane, uint32_t address, int bytes);
  // A lane that goes round in a loop, waiting for another: no straight code accesses shared memory
  // so often between two rendezvous.
  bool is_full() const { return accesses_.size() >= kMaxAccesses; }
  // Counts what was logged, forgets it.
  void settle(Statistics& statistics);

 private:
  static constexpr size_t kMaxAccesses = 256;

  struct Access {
    const char* instruction;
    const void* site;
    int bytes;
    uint32_t active;
    LaneAddresses addresses;
  };
  std::vector<Access> accesses_;
};

}  // namespace padmarlin::emulator
