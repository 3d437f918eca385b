// SPDX-License-Identifier: Apache-2.0
// Host twin of the 32-bit integer instructions.
#pragma once

#include <ptx/qualifiers.cuh>

namespace padmarlin::ptx {

// A selector's bit 3 replicates the sign of the byte instead of copying it.
PADMARLIN_DEVICE uint32_t prmt(uint32_t a, uint32_t b, uint32_t selector) {
  const uint64_t source = static_cast<uint64_t>(b) << 32 | a;
  uint32_t result = 0;
  for (int i = 0; i < 4; ++i) {
    const uint32_t select = selector >> 4 * i;
    uint32_t byte = source >> 8 * (select & 7) & 0xff;
    if (select & 8) byte = byte & 0x80 ? 0xff : 0;
    result |= byte << 8 * i;
  }
  return result;
}

PADMARLIN_DEVICE int shfl(int value, int source) { return emulator::shfl(value, source); }

PADMARLIN_DEVICE int opaque(int value) { return value; }

}  // namespace padmarlin::ptx
