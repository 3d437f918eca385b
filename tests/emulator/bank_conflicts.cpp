// SPDX-License-Identifier: Apache-2.0
// Bank conflicts of shared memory: the rule, and the log that feeds it.
#include "bank_conflicts.h"

#include <algorithm>

namespace padmarlin::emulator {
namespace {

constexpr int kBanks = 32;
constexpr int kBankBytes = 4;
constexpr int kPhaseBytes = kBanks * kBankBytes;

// Lanes that read the same word share it; different words of one bank come one after the other.
int wavefronts(const uint32_t* addresses, uint32_t active, int lanes, int bytes) {
  std::array<uint32_t, kBanks> words;  // of the phase, without repetition
  int num_words = 0;
  for (int lane = 0; lane < lanes; ++lane) {
    if (!(active >> lane & 1)) continue;
    for (int offset = 0; offset < bytes; offset += kBankBytes) {
      const uint32_t word = (addresses[lane] + offset) / kBankBytes;
      const auto end = words.begin() + num_words;
      if (std::find(words.begin(), end, word) == end) words[num_words++] = word;
    }
  }
  std::array<int, kBanks> load{};
  for (int i = 0; i < num_words; ++i) ++load[words[i] % kBanks];
  return *std::max_element(load.begin(), load.end());
}

}  // namespace

int extra_wavefronts(const LaneAddresses& addresses, uint32_t active, int bytes) {
  const int lanes = kPhaseBytes / bytes;
  int extra = 0;
  for (int first = 0; first < kWarp; first += lanes) {
    const int needed = wavefronts(addresses.data() + first, active >> first, lanes, bytes);
    extra += std::max(needed - 1, 0);
  }
  return extra;
}

void AccessLog::add(const char* instruction, const void* site, int lane, uint32_t address,
                    int bytes) {
  auto access = std::find_if(accesses_.begin(), accesses_.end(), [&](const Access& candidate) {
    return candidate.site == site && !(candidate.active >> lane & 1);
  });
  if (access == accesses_.end()) {
    access = accesses_.insert(access, Access{instruction, site, bytes, 0, {}});
  }
  access->active |= 1u << lane;
  access->addresses[lane] = address;
}

void AccessLog::settle(Statistics& statistics) {
  for (const Access& access : accesses_) {
    SharedAccesses& count = statistics[access.instruction];
    ++count.instructions;
    count.extra_wavefronts += extra_wavefronts(access.addresses, access.active, access.bytes);
  }
  accesses_.clear();
}

}  // namespace padmarlin::emulator
