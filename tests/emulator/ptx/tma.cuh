// SPDX-License-Identifier: Apache-2.0
// Host twin ahead of its device half: tile loads of the tensor copy engine and their mbarrier. The
// load is done on return; a twin that delivers late comes with the kernel that depends on it.
#pragma once

#include <cstring>
#include <ptx/qualifiers.cuh>
#include <ptx/shared_memory.cuh>

#include "cuda/stage.cuh"

#define PADMARLIN_GRID_CONSTANT const

namespace padmarlin::ptx {

// A row-major matrix of 16-bit elements and the box that one load brings: `box_rows` rows of 128
// bytes, stored with the 128-byte swizzle.
struct TensorMap {
  const uint16_t* base;
  int64_t columns, rows, pitch_bytes;
  int box_rows;
};

// Bits of the emulated mbarrier: the phase's parity, arrivals that are missing, bytes that are.
struct Mbarrier {
  uint64_t parity : 1, arrivals : 15, missing_arrivals : 16;
  int64_t missing_bytes : 32;
};
static_assert(sizeof(Mbarrier) == sizeof(uint64_t));

PADMARLIN_DEVICE void mbarrier_store(uint64_t* barrier, Mbarrier state) {
  if (state.missing_arrivals == 0 && state.missing_bytes == 0) {
    state.parity ^= 1;
    state.missing_arrivals = state.arrivals;
  }
  std::memcpy(barrier, &state, sizeof state);
}

PADMARLIN_DEVICE Mbarrier mbarrier_load(const uint64_t* barrier) {
  Mbarrier state;
  emulator::access_shared("mbarrier", barrier, sizeof state);  // a step: others get their turn
  std::memcpy(&state, barrier, sizeof state);
  return state;
}

PADMARLIN_DEVICE void mbarrier_init(uint64_t* barrier, int arrivals) {
  shared_address(barrier);
  const auto count = static_cast<uint64_t>(arrivals);
  mbarrier_store(barrier, {0, count & 0x7fff, count & 0xffff, 0});
}

PADMARLIN_DEVICE void mbarrier_arrive_expect_tx(uint64_t* barrier, int bytes) {
  Mbarrier state = mbarrier_load(barrier);
  state.missing_bytes += bytes;
  --state.missing_arrivals;
  mbarrier_store(barrier, state);
}

PADMARLIN_DEVICE void mbarrier_wait_parity(uint64_t* barrier, int parity) {
  while (mbarrier_load(barrier).parity == static_cast<uint64_t>(parity)) {
  }
}

PADMARLIN_DEVICE void tma_load_2d(void* shared, const TensorMap& map, int x, int y,
                                  uint64_t* barrier) {
  auto* const tile = static_cast<uint8_t*>(shared);
  for (int row = 0; row < map.box_rows; ++row) {
    for (int column = 0; column < kTile; ++column) {
      const bool inside =
          x + column >= 0 && x + column < map.columns && y + row >= 0 && y + row < map.rows;
      const int64_t source = inside ? (y + row) * (map.pitch_bytes / 2) + x + column : 0;
      const uint16_t value = inside ? map.base[source] : uint16_t{0};
      uint8_t* const chunk = tile + activation_offset(row, column / 8);
      shared_address(chunk + 15);
      std::memcpy(chunk + column % 8 * 2, &value, sizeof value);
    }
  }
  Mbarrier state = mbarrier_load(barrier);
  state.missing_bytes -= map.box_rows * kTile * 2;
  mbarrier_store(barrier, state);
}

}  // namespace padmarlin::ptx
