// SPDX-License-Identifier: Apache-2.0
// Host twin of the tensor copy engine.
#pragma once

#include <ptx/qualifiers.cuh>
#include <ptx/shared_memory.cuh>

#define PADMARLIN_GRID_CONSTANT const

namespace padmarlin::ptx {

using TensorMap = emulator::TensorMap;

PADMARLIN_DEVICE void prefetch_tensor_map(const TensorMap& map) { static_cast<void>(map); }

PADMARLIN_DEVICE void tma_load_2d(void* shared, const TensorMap& map, int x, int y,
                                  uint64_t* barrier) {
  emulator::tma_load_2d(shared, map, x, y, barrier);
}

}  // namespace padmarlin::ptx
