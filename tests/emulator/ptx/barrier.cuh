// SPDX-License-Identifier: Apache-2.0
// Host twin of the barriers.
#pragma once

#include <ptx/qualifiers.cuh>

namespace padmarlin::ptx {

PADMARLIN_DEVICE void bar_sync() { emulator::bar_sync(); }
PADMARLIN_DEVICE void bar_sync(int id, int threads) { emulator::named_bar_sync(id, threads); }

PADMARLIN_DEVICE void syncwarp() { emulator::syncwarp(); }

// One memory, one way to it.
PADMARLIN_DEVICE void fence_proxy_async() {}

}  // namespace padmarlin::ptx
