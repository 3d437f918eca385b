// SPDX-License-Identifier: Apache-2.0
// Loads a group's activations in place: no copy of A, no read outside its rows, zeros where the
// padded K has no column. Zero weights would not excuse a wrong read: 0 * NaN is NaN. Rows that A
// does not have are left as they are: a row of the output depends on no other row.
#pragma once

#include <ptx/bits.cuh>
#include <ptx/cp_async.cuh>
#include <ptx/shared_memory.cuh>

#include "cuda/gemm.h"
#include "cuda/stage.cuh"

namespace padmarlin {

// The widest copy that every piece of A allows: the largest power of two <= 16 that divides the
// address, the row stride and the offset of column 0. 2: elements, by plain loads.
PADMARLIN_DEVICE int activation_copy_bytes(const GemmArguments& args) {
  if (args.columns != nullptr) return 2;
  const uint64_t all = reinterpret_cast<uint64_t>(args.a) | static_cast<uint64_t>(args.lda) * 2 |
                       static_cast<uint64_t>(args.front_pad) * 2 | 16;
  return static_cast<int>(all & (~all + 1));
}

// One lane's part of its group's loads. A row of a tile is 128 bytes: a warp copies as many rows at
// a time as its lanes have pieces of `bytes`, and the warps of the group take turns. Of 16 bytes a
// lane has two, 64 bytes apart: eight rows at a time, whose swizzle is the same in the next eight.
//
// Elements (2) are loaded in pairs, a lane to each, into registers before the products of another
// tile and stored after them: `fetch` and `store`. Rows beyond kHeldRows of a warp, which few rows
// of A have, are loaded in `store`.
template <int kMSteps>
class ActivationLoader {
 public:
  PADMARLIN_DEVICE ActivationLoader(const GemmArguments& args, int column_warp, int column_warps,
                                    int lane)
      : bytes_(activation_copy_bytes(args)) {
    const int piece_bytes = gathers() ? 4 : bytes_;
    const int lanes = bytes_ == 16 ? 4 : kActivationRowBytes / piece_bytes;  // to a row
    row_ = column_warp * (kWarp / lanes) + lane / lanes;
    row_step_ = column_warps * (kWarp / lanes);
    step_ = row_step_ * args.lda;
    offset_ = lane % lanes * piece_bytes;
    place_ = place(row_);
  }

  PADMARLIN_DEVICE bool gathers() const { return bytes_ == 2; }

  // Rows m0, m0 + 1, ... of A and columns from padded row 64 * k_tile on.
  PADMARLIN_DEVICE void seek(const GemmArguments& args, int m0, int k_tile) {
    const int rows = args.m - m0;
    num_rows_ = rows < kMSteps * kStepRows ? rows : kMSteps * kStepRows;
    m_ = m0 + row_;
    if (gathers()) {
      name_columns(args, k_tile);
    } else {
      source_ = first(args) + column_of(args, k_tile);
    }
  }

  // Copies a tile's rows to a stage. Not for elements.
  PADMARLIN_DEVICE void load(const GemmArguments& args, int k_tile, uint8_t* stage) const {
    const int column = column_of(args, k_tile);
    if (bytes_ == 16) {
      copy<16>(args, column, 0, stage);
      copy<16>(args, column, 1, stage);
    } else if (bytes_ == 8) {
      copy<8>(args, column, 0, stage);
    } else {
      copy<4>(args, column, 0, stage);
    }
  }

  // From k_tile up to here, `load` copies whole pieces of 16 bytes, and few: load_whole will do.
  PADMARLIN_DEVICE int whole_end(const GemmArguments& args, int k_tile) const {
    const bool whole = bytes_ == 16 && k_tile * kTile >= args.front_pad;
    return whole && num_rows_ <= kWholeTurns * row_step_ ? (args.front_pad + args.k) / kTile : 0;
  }

  // `load` of such a tile, and on by `step` tiles: what nearly all iterations do.
  PADMARLIN_DEVICE void load_whole(uint8_t* stage, int step) {
    const uint16_t* source = source_;
    uint8_t* place = stage + place_;
#pragma unroll
    for (int turn = 0; turn < kWholeTurns; ++turn) {
      const bool present = row_ + turn * row_step_ < num_rows_;
      ptx::cp_async_if(present, place, source);
      ptx::cp_async_if(present, flip(place, kHalfRowBytes), source + kHalfRowBytes / 2);
      source += step_;
      place += row_step_ * kActivationRowBytes;
    }
    source_ += static_cast<int64_t>(step) * kTile;
  }

  PADMARLIN_DEVICE void fetch(const GemmArguments& args) {
    int row = held_row();
    const uint16_t* source = first(args);
#pragma unroll
    for (int i = 0; i < kHeldRows; ++i, row += row_step_, source += step_) {
      if (row >= num_rows_) break;
      held_[i] = pair(args, source);
    }
  }

  PADMARLIN_DEVICE void store(const GemmArguments& args, uint8_t* stage) const {
    int row = held_row();
#pragma unroll
    for (int i = 0; i < kHeldRows; ++i, row += row_step_) {
      if (row >= num_rows_) return;
      store_pair(stage, row, held_[i]);
    }
    const uint16_t* source = first(args) + kHeldRows * step_;
#pragma unroll 1
    for (; row < num_rows_; row += row_step_, source += step_) {
      store_pair(stage, row, pair(args, source));
    }
  }

  // On to `k_tile`, `step` tiles further along K.
  PADMARLIN_DEVICE void advance(const GemmArguments& args, int k_tile, int step) {
    if (gathers()) {
      name_columns(args, k_tile);
    } else {
      source_ += static_cast<int64_t>(step) * kTile;
    }
  }

 private:
  static constexpr int kHeldRows = 4;
  static constexpr int kHalfRowBytes = kActivationRowBytes / 2;
  // Turns of the warps that load_whole takes: with 4 column warps all rows.
  static constexpr int kWholeTurns = kMSteps <= 4 ? 1 : kMSteps / 4;

  struct Pair {
    uint16_t low, high;
  };

  // A piece is whole, cut by the end of K, or absent; the front pad is a multiple of it, so the
  // head never cuts one. An absent piece's address may lie outside A: nothing is read there.
  template <int kBytes>
  PADMARLIN_DEVICE void copy(const GemmArguments& args, int first_column, int half,
                             uint8_t* stage) const {
    constexpr int kElements = kBytes / 2;
    const int column = first_column + half * (kTile / 2), left = args.k - column;
    const int present = column < 0 || left <= 0 ? 0 : left < kElements ? left : kElements;
    const uint16_t* source = source_ + half * (kTile / 2);
#pragma unroll 1
    for (int row = row_; row < num_rows_; row += row_step_, source += step_) {
      ptx::cp_async<kBytes>(flip(stage + place(row), half * kHalfRowBytes), source, present * 2);
    }
  }

  // The first row. Where registers are few the others' places must not wait in some.
  PADMARLIN_DEVICE int held_row() const { return kMSteps == 2 ? ptx::opaque(row_) : row_; }

  // Column 0 of the lane's first row.
  PADMARLIN_DEVICE const uint16_t* first(const GemmArguments& args) const {
    return static_cast<const uint16_t*>(args.a) + m_ * args.lda;
  }

  PADMARLIN_DEVICE int place(int row) const {
    return activation_offset(row, offset_ / 16) + offset_ % 16;
  }

  // Of the lane's first element, if the weight's rows are A's columns in order.
  PADMARLIN_DEVICE int column_of(const GemmArguments& args, int k_tile) const {
    return k_tile * kTile + offset_ / 2 - args.front_pad;
  }

  PADMARLIN_DEVICE void name_columns(const GemmArguments& args, int k_tile) {
    if (args.columns != nullptr) {
      const int32_t* columns = args.columns + k_tile * kTile + offset_ / 2;
      columns_[0] = columns[0];
      columns_[1] = columns[1];
    } else {
      columns_[0] = column_of(args, k_tile);
      columns_[1] = columns_[0] + 1;
    }
  }

  // The named columns of one row. The unsigned comparisons refuse -1 and whatever else does not
  // belong into the table.
  PADMARLIN_DEVICE Pair pair(const GemmArguments& args, const uint16_t* row) const {
    const auto k = static_cast<uint32_t>(args.k);
    const bool has_low = static_cast<uint32_t>(columns_[0]) < k;
    const bool has_high = static_cast<uint32_t>(columns_[1]) < k;
    return {has_low ? row[columns_[0]] : uint16_t{0}, has_high ? row[columns_[1]] : uint16_t{0}};
  }

  PADMARLIN_DEVICE void store_pair(uint8_t* stage, int row, Pair pair) const {
    ptx::st_shared(stage + place(row), static_cast<uint32_t>(pair.high) << 16 | pair.low);
  }

  int bytes_;           // of a piece
  int row_, row_step_;  // of the tile: the lane's first, and how far its next is
  int64_t step_;        // that far, in elements of A
  int offset_;          // of the lane's piece in its row, in bytes
  int place_;           // of the piece in a stage
  int num_rows_;        // that A has for this tile
  int m_;               // the lane's first row of A
  // Of the next tile; as a union, for the registers are few.
  union {
    const uint16_t* source_;  // the lane's piece in its first row
    int columns_[2];          // if it gathers: the columns of the lane's pair
  };
  Pair held_[kHeldRows];
};

}  // namespace padmarlin
