// SPDX-License-Identifier: Apache-2.0
// Loads a group's activations in place: no copy of A, no read outside its rows, zeros where the
// padded K has no column. Zero weights would not excuse a wrong read: 0 * NaN is NaN. Rows that A
// does not have are left as they are: a row of the output depends on no other row.
#pragma once

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

// One lane's part of its group's loads. A row of a tile is 128 bytes: a warp copies bytes / 4 rows
// at a time in pieces of `bytes`, and the warps of the group take turns.
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
    const int pieces = kActivationRowBytes / piece_bytes;
    row_ = column_warp * (kWarp / pieces) + lane / pieces;
    row_step_ = column_warps * (kWarp / pieces);
    step_ = row_step_ * args.lda;
    offset_ = lane % pieces * piece_bytes;
  }

  PADMARLIN_DEVICE bool gathers() const { return bytes_ == 2; }

  // Rows m0, m0 + 1, ... of A and columns from padded row 64 * k_tile on.
  PADMARLIN_DEVICE void seek(const GemmArguments& args, int m0, int k_tile) {
    const int rows = args.m - m0;
    num_rows_ = rows < kMSteps * kStepRows ? rows : kMSteps * kStepRows;
    source_ = static_cast<const uint16_t*>(args.a) + (m0 + row_) * args.lda;
    if (gathers()) {
      name_columns(args, k_tile);
    } else {
      source_ += column_of(args, k_tile);
    }
  }

  // Copies a tile's rows to a stage. Not for elements.
  PADMARLIN_DEVICE void load(const GemmArguments& args, int k_tile, uint8_t* stage) const {
    const int column = column_of(args, k_tile);
    if (bytes_ == 16) {
      copy<16>(args, column, stage);
    } else if (bytes_ == 8) {
      copy<8>(args, column, stage);
    } else {
      copy<4>(args, column, stage);
    }
  }

  PADMARLIN_DEVICE void fetch(const GemmArguments& args) {
    const uint16_t* source = source_;
#pragma unroll
    for (int i = 0; i < kHeldRows; ++i, source += step_) {
      if (row_ + i * row_step_ >= num_rows_) break;
      held_[i] = pair(args, source);
    }
  }

  PADMARLIN_DEVICE void store(const GemmArguments& args, uint8_t* stage) const {
    int row = row_;
#pragma unroll
    for (int i = 0; i < kHeldRows; ++i, row += row_step_) {
      if (row >= num_rows_) return;
      store_pair(stage, row, held_[i]);
    }
    const uint16_t* source = source_ + kHeldRows * step_;
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
      source_ += step * kTile;
    }
  }

 private:
  static constexpr int kHeldRows = 4;

  struct Pair {
    uint16_t low, high;
  };

  // A piece is whole, cut by the end of K, or absent; the front pad is a multiple of it, so the
  // head never cuts one. An absent piece's address may lie outside A: nothing is read there.
  template <int kBytes>
  PADMARLIN_DEVICE void copy(const GemmArguments& args, int column, uint8_t* stage) const {
    constexpr int kElements = kBytes / 2;
    const int left = args.k - column;
    // What nearly all pieces are, and a copy of constant size is cheaper.
    if (column >= 0 && left >= kElements) return copy_rows<kBytes>(stage, kBytes);
    copy_rows<kBytes>(stage, column < 0 || left <= 0 ? 0 : left * 2);
  }

  template <int kBytes>
  PADMARLIN_DEVICE void copy_rows(uint8_t* stage, int present_bytes) const {
    const uint16_t* source = source_;
    int row = row_;
    if (row >= num_rows_) return;
    ptx::cp_async<kBytes>(stage + place(row), source, present_bytes);
#pragma unroll 1
    while ((row += row_step_) < num_rows_) {
      source += step_;
      ptx::cp_async<kBytes>(stage + place(row), source, present_bytes);
    }
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
      low_column_ = columns[0];
      high_column_ = columns[1];
    } else {
      low_column_ = column_of(args, k_tile);
      high_column_ = low_column_ + 1;
    }
  }

  // The named columns of one row. The unsigned comparisons refuse -1 and whatever else does not
  // belong into the table.
  PADMARLIN_DEVICE Pair pair(const GemmArguments& args, const uint16_t* row) const {
    const auto k = static_cast<uint32_t>(args.k);
    const bool has_low = static_cast<uint32_t>(low_column_) < k;
    const bool has_high = static_cast<uint32_t>(high_column_) < k;
    return {has_low ? row[low_column_] : uint16_t{0}, has_high ? row[high_column_] : uint16_t{0}};
  }

  PADMARLIN_DEVICE void store_pair(uint8_t* stage, int row, Pair pair) const {
    ptx::st_shared(stage + place(row), static_cast<uint32_t>(pair.high) << 16 | pair.low);
  }

  int bytes_;               // of a piece
  int row_, row_step_;      // of the tile: the lane's first, and how far its next is
  int64_t step_;            // that far, in elements of A
  int offset_;              // of the lane's piece in its row, in bytes
  int num_rows_;            // that A has for this tile
  const uint16_t* source_;  // the lane's first element; if it gathers, column 0 of its first row
  int low_column_, high_column_;  // of the next tile's pair, if it gathers
  Pair held_[kHeldRows];
};

}  // namespace padmarlin
