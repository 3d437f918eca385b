// SPDX-License-Identifier: Apache-2.0
// Packed tiles -> rows of weights, exactly as gemm multiplies with them (cuda/dequant.cuh). One
// block per tile, a warp per k-slice; through shared memory, because a lane has two rows of a
// column and memory wants the columns of a row.
#pragma once

#include <ptx/barrier.cuh>
#include <ptx/bits.cuh>
#include <ptx/shared_memory.cuh>
#include <ptx/special_registers.cuh>

#include "cuda/dequant.cuh"
#include "cuda/dequantize.h"

namespace padmarlin {

constexpr int kDequantizeThreads = kSlicesPerTile * kWarp;

constexpr int64_t dequantize_blocks(int n, int padded_k) {
  return static_cast<int64_t>(div_up(n, kTile)) * (padded_k / kTile);
}

// The word of shared memory that holds rows 2 * pair and 2 * pair + 1 of a column. Free of
// conflicts when a warp stores columns g, pairs t (lane 4g + t): bits 2 to 4 tell the eight columns
// apart; and when 16 lanes load two pairs each of columns 0, 8, 16, 24: bits 3 and 4 do.
constexpr int dequantized_word(int column, int pair) {
  return column * (kTile / 2) + (pair ^ column % 8 * 4 ^ column / 8 % 4 * 8);
}

// One warp's k-slice of a tile: fragments of dequant.cuh into shared memory.
template <Dtype kDtype, int kBits, Dequant kDequant, bool kAsymmetric>
PADMARLIN_DEVICE void unpack_slice(const DequantizeArguments& args, int n_tile, int k_tile,
                                   int slice, int lane, uint32_t* shared) {
  using Weights = Dequantizer<kDtype, kBits, kDequant, kAsymmetric>;
  const int g = lane / 4, t = lane % 4;
  const size_t tile = static_cast<size_t>(n_tile) * (args.padded_k / kTile) + k_tile;
  const uint32_t* const atom =
      args.qweight + tile * tile_words(kBits) + slice * atom_words(kBits) + lane * kWordsPerLane;
  uint4 words[planes(kBits)];
#pragma unroll
  for (int plane = 0; plane < planes(kBits); ++plane) {
    words[plane] = *reinterpret_cast<const uint4*>(atom + plane * kPlaneWords);
  }
  // A row outside the table cannot come from repack; it must still not be read.
  const uint32_t last = static_cast<uint32_t>(args.scale_rows - 1);
  const uint32_t named = static_cast<uint32_t>(args.slice_rows[k_tile * kSlicesPerTile + slice]);
  const int64_t first = (named < last ? named : last) * args.lds + n_tile * kTile + 8 * g;
  const uint4 scales =
      *reinterpret_cast<const uint4*>(static_cast<const uint16_t*>(args.scales) + first);
  uint4 zeros = {};
  if constexpr (kAsymmetric) zeros = *reinterpret_cast<const uint4*>(args.zeros + first);

  const auto word_of = [](const uint4& four, int j) {
    return j == 0 ? four.x : j == 1 ? four.y : j == 2 ? four.z : four.w;
  };
#pragma unroll
  for (int j = 0; j < kWordsPerLane; ++j) {
    uint32_t packed[planes(kBits)], weights[4];
#pragma unroll
    for (int plane = 0; plane < planes(kBits); ++plane) packed[plane] = word_of(words[plane], j);
    Weights::fragment(packed, Weights::columns(word_of(scales, j), word_of(zeros, j)), weights);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int column = 16 * j + i % 2 * 8 + g, pair = slice * 8 + i / 2 * 4 + t;
      ptx::st_shared(shared + dequantized_word(column, pair), weights[i]);
    }
  }
}

// Eight columns from `n` on of one row of `out`; those from args.n on are padding.
PADMARLIN_DEVICE void store_row(const DequantizeArguments& args, int64_t row, int n,
                                const uint32_t (&pairs)[4]) {
  uint16_t* const out = static_cast<uint16_t*>(args.out) + row * args.ldo + n;
  if (n + 8 <= args.n && reinterpret_cast<uint64_t>(out) % 16 == 0) {
    *reinterpret_cast<uint4*>(out) = uint4{pairs[0], pairs[1], pairs[2], pairs[3]};
    return;
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    if (n + i < args.n) out[i] = static_cast<uint16_t>(pairs[i / 2] >> i % 2 * 16);
  }
}

// A thread's four rows of eight columns: a warp writes 64 adjacent bytes of each row.
PADMARLIN_DEVICE void store_rows(const DequantizeArguments& args, int n_tile, int k_tile,
                                 const uint32_t* shared) {
  const int lane = ptx::tid_x() % kWarp, warp = ptx::tid_x() / kWarp;
  const int first_column = (warp % 2 * 4 + lane % 4) * 8;
  const int first_row = (warp / 2 * 8 + lane / 4) * 4;
  uint2 columns[8];  // rows 0, 1 and rows 2, 3 of each
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    columns[i] = ptx::ld_shared_v2(shared + dequantized_word(first_column + i, first_row / 2));
  }
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    const int padded_row = k_tile * kTile + first_row + r;
    const int row =
        args.columns != nullptr ? args.columns[padded_row] : padded_row - args.front_pad;
    // The unsigned comparison refuses padding, and what does not belong into a table.
    if (static_cast<uint32_t>(row) >= static_cast<uint32_t>(args.k)) continue;
    const uint32_t half = r % 2 == 0 ? 0x5410 : 0x7632;
    uint32_t pairs[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint2 &low = columns[2 * i], &high = columns[2 * i + 1];
      pairs[i] = r < 2 ? ptx::prmt(low.x, high.x, half) : ptx::prmt(low.y, high.y, half);
    }
    store_row(args, row, n_tile * kTile + first_column, pairs);
  }
}

// Grid (dequantize_blocks), kDequantizeThreads threads, kDequantizeSharedBytes.
template <Dtype kDtype, int kBits, Dequant kDequant, bool kAsymmetric>
__global__ void __launch_bounds__(kDequantizeThreads) dequantize_kernel(DequantizeArguments args) {
  const int k_tiles = args.padded_k / kTile;
  const int n_tile = ptx::ctaid_x() / k_tiles, k_tile = ptx::ctaid_x() % k_tiles;
  uint32_t* const shared = reinterpret_cast<uint32_t*>(ptx::dynamic_shared());
  unpack_slice<kDtype, kBits, kDequant, kAsymmetric>(args, n_tile, k_tile, ptx::tid_x() / kWarp,
                                                     ptx::tid_x() % kWarp, shared);
  ptx::bar_sync();
  store_rows(args, n_tile, k_tile, shared);
}

using DequantizeKernel = void (*)(DequantizeArguments);

template <Dtype kDtype, int kBits>
DequantizeKernel dequantize_kernel_for(Dequant dequant, bool asymmetric) {
  if constexpr (kBits == 4) {
    if (dequant == Dequant::kTwoField) {
      return asymmetric ? dequantize_kernel<kDtype, kBits, Dequant::kTwoField, true>
                        : dequantize_kernel<kDtype, kBits, Dequant::kTwoField, false>;
    }
  }
  if (dequant == Dequant::kOneField) {
    return asymmetric ? dequantize_kernel<kDtype, kBits, Dequant::kOneField, true>
                      : dequantize_kernel<kDtype, kBits, Dequant::kOneField, false>;
  }
  if (dequant == Dequant::kWide && asymmetric) {
    return dequantize_kernel<kDtype, kBits, Dequant::kWide, true>;
  }
  return nullptr;
}

// The kernel for a weight; null if there is no such weight.
inline DequantizeKernel dequantize_kernel_for(const DequantizeArguments& args) {
  const bool half = args.dtype == Dtype::kHalf, asymmetric = args.zeros != nullptr;
  if (args.bits == 4) {
    return half ? dequantize_kernel_for<Dtype::kHalf, 4>(args.dequant, asymmetric)
                : dequantize_kernel_for<Dtype::kBfloat16, 4>(args.dequant, asymmetric);
  }
  if (args.bits == 8) {
    return half ? dequantize_kernel_for<Dtype::kHalf, 8>(args.dequant, asymmetric)
                : dequantize_kernel_for<Dtype::kBfloat16, 8>(args.dequant, asymmetric);
  }
  return nullptr;
}

}  // namespace padmarlin
