// SPDX-License-Identifier: Apache-2.0
// The entry point of the repack kernels: codes of a checkpoint -> tiles of core/layout.h.
// No torch: raw pointers in, cudaError_t out (as int).
#pragma once

#include <cstdint>

namespace padmarlin {

// GPTQ packs 32/bits consecutive rows (k) into an int32, lowest bits first.
struct RepackArguments {
  const uint32_t* qweight;     // (ceil(rows * bits / 32), >= n) words, row stride ldw
  const int32_t* source_rows;  // (padded_k): row that stands at each padded row, -1: padding
  const int32_t* slice_rows;   // (padded_k / 16): scale row of each k-slice
  const uint8_t* pad_codes;    // (scale_rows, padded_n): code of the padding, or null: 2^(bits-1)
  uint32_t* out;               // (padded_n / 64, padded_k / 64, tile_words(bits))
  int64_t ldw;                 // in words
  int source_words;            // rows of words in qweight; a source row beyond them is padding
  int n, padded_n, padded_k, scale_rows;
  int bits;
  int field_base;  // core/layout.h
};

// `stream` is a cudaStream_t. Returns a cudaError_t.
int launch_repack_gptq(const RepackArguments& arguments, void* stream);

}  // namespace padmarlin
