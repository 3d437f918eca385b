// SPDX-License-Identifier: Apache-2.0
// The entry point of the repack kernels: codes of a checkpoint -> tiles of core/layout.h.
// No torch: raw pointers in, cudaError_t out (as int).
#pragma once

#include <cstdint>

#include "core/packing.h"

namespace padmarlin {

// A code outside the words, whatever the tables say, is padding; nothing outside them is read.
struct RepackArguments {
  const uint32_t* words;       // (word_rows, word_columns), row stride ldw, of `packing`
  const int32_t* source_rows;  // (padded_k): row that stands at each padded row, -1: padding
  const int32_t* slice_rows;   // (padded_k / 16): scale row of each k-slice
  const uint8_t* pad_codes;    // (scale_rows, padded_n): code of the padding, or null: 2^(bits-1)
  uint32_t* out;               // (padded_n / 64, padded_k / 64, tile_words(bits))
  int64_t ldw;                 // in words
  int word_rows, word_columns;
  Packing packing;
  int first_column;  // the words' column that becomes column 0
  int n, padded_n, padded_k, scale_rows;
  int bits;
  int field_base;  // core/layout.h
};

// `stream` is a cudaStream_t. Returns a cudaError_t.
int launch_repack(const RepackArguments& arguments, void* stream);

}  // namespace padmarlin
