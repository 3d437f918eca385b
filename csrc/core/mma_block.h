// SPDX-License-Identifier: Apache-2.0
// What one block of the mma kernel is: how its warps share an output tile, and what that takes of
// shared memory. docs/kernel-mma.md draws it. Pure constexpr C++: no CUDA, no torch.
#pragma once

#include "core/layout.h"

namespace padmarlin {

constexpr int kStepRows = 8;  // M goes in steps of 8 rows: the n of mma.m16n8k16
constexpr int kMaxMSteps = 8;
constexpr int kMaxBlockWarps = 8;
constexpr int kMaxBlockThreads = kMaxBlockWarps * kWarp;

// Four stages, three of them in flight: 60 KB of 4-bit weights for 8 warps, which is more than the
// 22 to 35 KB that hide the latency of an H200's memory.
constexpr int kStages = 4;

// An output tile has 8 * m_steps rows and 64 * column_warps columns. Each of the `k_groups` groups
// of column_warps warps takes every k_groups-th k-tile of a segment, through a ring of its own.
// The sums of the groups are added in their order: k_groups decides bits, the other two do not.
struct BlockShape {
  int m_steps;       // 1, 2, 4 or 8, a template parameter of the kernel
  int column_warps;  // column_warps * k_groups <= kMaxBlockWarps
  int k_groups;
};

constexpr int block_rows(const BlockShape& shape) { return shape.m_steps * kStepRows; }
constexpr int block_columns(const BlockShape& shape) { return shape.column_warps * kTile; }
constexpr int block_warps(const BlockShape& shape) { return shape.column_warps * shape.k_groups; }
constexpr int block_threads(const BlockShape& shape) { return block_warps(shape) * kWarp; }

// Blocks of 8 warps that an SM must be able to hold, which is a bound on registers: 128 a thread
// for two. Of 8-bit weights shared memory holds the stages of one.
constexpr int min_blocks_per_sm(int bits, int m_steps) { return bits == 4 && m_steps <= 2 ? 2 : 1; }

// A stage holds one k-tile (64 rows of K) of one group: the activations of all rows, and for each
// warp its weight tile with four rows of scales and, if asymmetric, of zeros, one per k-slice.
constexpr int kActivationRowBytes = kTile * 2;
constexpr int kScaleBytes = kSlicesPerTile * kTile * 2;

constexpr int activation_bytes(int m_steps) { return m_steps * kStepRows * kActivationRowBytes; }
constexpr int warp_stage_bytes(int bits, bool asymmetric) {
  return tile_bytes(bits) + kScaleBytes * (asymmetric ? 2 : 1);
}
constexpr int stage_bytes(int bits, bool asymmetric, const BlockShape& shape) {
  return activation_bytes(shape.m_steps) + shape.column_warps * warp_stage_bytes(bits, asymmetric);
}
constexpr int ring_bytes(int bits, bool asymmetric, const BlockShape& shape) {
  return kStages * stage_bytes(bits, asymmetric, shape);
}

// Behind the rings: where the groups' sums meet, one step of 8 rows at a time. All groups but the
// first store theirs, four vectors a lane, and the first adds them. Then it turns its sums, held by
// columns, into rows: 68 floats apart, so that the 32 sums that a warp stores together, rows 2t and
// columns g (t = 0..3, g = 0..7), fall into 32 banks: 2 * 68 mod 32 = 8.
constexpr int kStepSumsBytes = kStepRows * kTile * static_cast<int>(sizeof(float));  // of a warp
constexpr int kRowPitch = kTile + 4;
constexpr int kRowsBytes = kStepRows * kRowPitch * static_cast<int>(sizeof(float));
constexpr int kFlagBytes = 16;  // whether this block came last to a tile

constexpr int group_sums_bytes(const BlockShape& shape) {
  return (shape.k_groups - 1) * shape.column_warps * kStepSumsBytes;
}
constexpr int shared_bytes(int bits, bool asymmetric, const BlockShape& shape) {
  return shape.k_groups * ring_bytes(bits, asymmetric, shape) + group_sums_bytes(shape) +
         shape.column_warps * kRowsBytes + kFlagBytes;
}

}  // namespace padmarlin
