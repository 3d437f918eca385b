// SPDX-License-Identifier: Apache-2.0
// Host twin of the barriers.
#pragma once

#include <ptx/qualifiers.cuh>

namespace padmarlin::ptx {

PADMARLIN_DEVICE void bar_sync() { emulator::bar_sync(); }
PADMARLIN_DEVICE void bar_sync(int id, int threads) { emulator::named_bar_sync(id, threads); }

}  // namespace padmarlin::ptx
