// SPDX-License-Identifier: Apache-2.0
// The entry point of the dequantize kernels: packed tiles -> a row-major matrix of 16-bit weights.
// No torch: raw pointers in, cudaError_t out (as int).
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "core/layout.h"

namespace padmarlin {

struct DequantizeArguments {
  const uint32_t* qweight;    // (n in tiles, padded_k / 64, tile_words(bits))
  const void* scales;         // (scale_rows, n in tiles), permuted, times 2^e, row stride lds
  const uint16_t* zeros;      // the same, or null: symmetric
  const int32_t* slice_rows;  // (padded_k / 16): scale row of each k-slice
  const int32_t* columns;     // (padded_k): row of `out` that each padded row is, -1 none; or null
  void* out;                  // (k, n) of `dtype`, row stride ldo
  int64_t lds, ldo;           // in elements
  int n, k, padded_k, scale_rows;
  int front_pad;  // padded rows before row 0 of `out` (0 with `columns`)
  int bits;
  Dtype dtype;
  Dequant dequant;
};

// The same for n columns from `first` on, a multiple of 64, into another `out`.
inline DequantizeArguments with_columns(DequantizeArguments args, int first, int n, void* out,
                                        int64_t ldo) {
  args.qweight += int64_t{first / kTile} * (args.padded_k / kTile) * tile_words(args.bits);
  args.scales = static_cast<const uint16_t*>(args.scales) + first;
  if (args.zeros != nullptr) args.zeros += first;
  args.n = n;
  args.out = out;
  args.ldo = ldo;
  return args;
}

constexpr int kDequantizeSharedBytes = kTile * kTile * 2;  // of a launch: one tile

// Rows of `out` that no padded row is are left as they are; nothing outside `out` is written,
// whatever the tables say. `stream` is a cudaStream_t. Returns a cudaError_t.
int launch_dequantize(const DequantizeArguments& arguments, void* stream);

}  // namespace padmarlin
