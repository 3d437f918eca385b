// SPDX-License-Identifier: Apache-2.0
// What one block of the wgmma kernel is, and what that takes of shared memory. docs/kernel-wgmma.md
// draws it. Pure constexpr C++: no CUDA, no torch.
#pragma once

#include <iterator>
#include <utility>

#include "core/mma_block.h"

namespace padmarlin::wgmma {

// A block computes 256 columns (of the weight; the M of wgmma) x `rows` rows (of A; its N). Two
// consumer warpgroups have 128 columns each: two weight tiles, four warps, 16 x 2 columns a warp.
constexpr int kWarpgroup = 4 * kWarp;
constexpr int kConsumers = 2;
constexpr int kThreads = (1 + kConsumers) * kWarpgroup;  // the first warpgroup brings the data
constexpr int kTilesPerConsumer = 2;
constexpr int kBlockTiles = kConsumers * kTilesPerConsumer;
constexpr int kBlockColumns = kBlockTiles * kTile;

// Rows a block may have, whole turns of the epilogue. Tensor cores work for all of them, so the
// fewer lie beyond M the better; docs/kernel-wgmma.md says what each number of rows earns. The sums
// take as many registers of a thread as a block has rows; 176 would spill.
constexpr int kBlockRows[] = {48, 64, 80, 96, 112, 128, 144, 160};

// Calls function.operator()<rows>() of the block that has so many rows; false if none has.
template <typename Function>
constexpr bool with_block_rows(int rows, const Function& function) {
  const auto offer = [&]<int kRows>() {
    if (rows == kRows) function.template operator()<kRows>();
    return rows == kRows;
  };
  return [&]<size_t... kIndex>(std::index_sequence<kIndex...>) {
    return (offer.template operator()<kBlockRows[kIndex]>() || ...);
  }(std::make_index_sequence<std::size(kBlockRows)>());
}

// Registers of a thread: a launch of 384 threads has 65536 / 384 = 168 (a multiple of 8) for each.
// What producers give up, consumers take: 40 * 128 + 232 * 256 = 168 * 384. More was never granted.
constexpr int kLaunchRegisters = 168, kProducerRegisters = 40, kConsumerRegisters = 232;
static_assert((kProducerRegisters + kConsumers * kConsumerRegisters) * kWarpgroup <=
              kLaunchRegisters * kThreads);

// wgmma groups (k-slices) that run at a time, the newest included: as many sets of weight registers
// are needed. At 160 rows the sums leave room for two (with four 4 to 32 bytes spill), not for
// three: a set belongs to a k-slice, and a turn has four. More than the four k-slices of a turn of
// the loop would let ptxas reuse registers of a running wgmma without a word.
constexpr int groups_in_flight(int rows) { return rows <= 144 ? 4 : 2; }

// ---- shared memory: a ring of stages, then what follows below

// A stage is one k-tile: 64 columns of A (`rows` rows of 128 bytes, 128-byte swizzle), the weight
// tiles, and four places for rows of scales (and of zeros), of which k-slices share some.
constexpr int kScaleRowBytes = kBlockColumns * 2;
constexpr int kSwizzleBytes = 1024;  // eight rows: the pattern repeats; stages are aligned to it

struct StageLayout {
  int weights, scales, zeros, bytes;
};
constexpr StageLayout stage_layout(int rows, int bits, bool asymmetric) {
  const int weights = rows * kActivationRowBytes;
  const int scales = weights + kBlockTiles * tile_bytes(bits);
  const int zeros = scales + kSlicesPerTile * kScaleRowBytes;
  return {weights, scales, zeros, asymmetric ? zeros + kSlicesPerTile * kScaleRowBytes : zeros};
}

// The epilogue turns 16 rows x 128 columns of each consumer at a time. 16 bytes more than a row
// has: eight rows one below the other fall into different banks.
constexpr int kTurnRows = 16;
constexpr int kTurnPitch = kTilesPerConsumer * kTile * 2 + 16;
constexpr int kTurnBytes = kTurnRows * kTurnPitch;

constexpr int kMaxSharedBytes = 227 * 1024;  // of a block on sm_90
constexpr int kMaxStages = 8;

struct SharedLayout {
  int stages;
  int turn, places, full, empty, last_to_come, bytes;
};
constexpr SharedLayout shared_layout(int rows, int bits, bool asymmetric) {
  const int stage_bytes = stage_layout(rows, bits, asymmetric).bytes;
  const int place_bytes = kSlicesPerTile * 4, barrier_bytes = 8;
  const int rest = kConsumers * kTurnBytes + kMaxStages * (place_bytes + 2 * barrier_bytes) + 16;
  const int fitting = (kMaxSharedBytes - rest) / stage_bytes;
  const int stages = fitting < kMaxStages ? fitting : kMaxStages;
  const int turn = stages * stage_bytes;
  const int places = turn + kConsumers * kTurnBytes;
  const int full = places + stages * place_bytes;
  const int empty = full + stages * barrier_bytes;
  const int last_to_come = empty + stages * barrier_bytes;
  return {stages, turn, places, full, empty, last_to_come, last_to_come + 16};
}

}  // namespace padmarlin::wgmma
