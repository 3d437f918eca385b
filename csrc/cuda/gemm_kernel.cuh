// SPDX-License-Identifier: Apache-2.0
// The mma.sync gemm, sm_80 and up: out = a @ dequantize(weight) + bias for any m.
//
// A block of four warps computes 16 * kMSlices rows x 256 columns, each warp the 64 columns of one
// weight tile; it walks K a tile (64) at a time through a ring of cp.async stages. Blocks that
// share K (grid y) write fp32 partials that reduce_kernel adds in order: the same bits every run.
#pragma once

#include <ptx/barrier.cuh>
#include <ptx/cp_async.cuh>
#include <ptx/mma.cuh>
#include <ptx/shared_memory.cuh>
#include <ptx/special_registers.cuh>

#include "cuda/activations.cuh"
#include "cuda/dequant.cuh"
#include "cuda/epilogue.cuh"
#include "cuda/gemm.h"
#include "cuda/stage.cuh"
#include "cuda/weights.cuh"

namespace padmarlin {

constexpr int gemm_blocks(int m, int padded_n, int m_slices) {
  return div_up(m, 16 * m_slices) * div_up(padded_n, kBlockColumns);
}

// One stage's products: acc[i][b] += rows 16i.. of the activations times 8-column block b.
template <Dtype kDtype, int kBits, Dequant kDequant, bool kAsymmetric, int kMSlices>
PADMARLIN_DEVICE void multiply_stage(const uint8_t* stage, int warp, int lane,
                                     float (&acc)[kMSlices][8][4]) {
  using Layout = Stage<kBits, kMSlices, kAsymmetric>;
  using Weights = Dequantizer<kDtype, kBits, kDequant, kAsymmetric>;
  const uint8_t* weights = stage + Layout::kWeights + warp * tile_bytes(kBits) + lane * 16;
  const uint8_t* scales = stage + Layout::kScales + warp * Layout::kTileScaleBytes + lane / 4 * 16;

#pragma unroll
  for (int slice = 0; slice < kSlicesPerTile; ++slice) {
    uint32_t a[kMSlices][4];
#pragma unroll
    for (int i = 0; i < kMSlices; ++i) {
      ptx::ldmatrix_x4(a[i], stage + activation_offset(16 * i + lane % 16, 2 * slice + lane / 16));
    }
    // Word j of each serves columns g + 16j and g + 16j + 8.
    const uint4 scale = ptx::ld_shared_v4(scales + slice * kTile * 2);
    const uint32_t scale_words[4] = {scale.x, scale.y, scale.z, scale.w};
    uint32_t zero_words[4] = {};
    if constexpr (kAsymmetric) {
      const uint4 zero =
          ptx::ld_shared_v4(scales + Layout::kZeros - Layout::kScales + slice * kTile * 2);
      zero_words[0] = zero.x, zero_words[1] = zero.y, zero_words[2] = zero.z,
      zero_words[3] = zero.w;
    }
    uint32_t words[4][planes(kBits)];
#pragma unroll
    for (int plane = 0; plane < planes(kBits); ++plane) {
      const uint4 packed =
          ptx::ld_shared_v4(weights + (slice * planes(kBits) + plane) * kPlaneWords * 4);
      words[0][plane] = packed.x, words[1][plane] = packed.y, words[2][plane] = packed.z,
      words[3][plane] = packed.w;
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      uint32_t w[4];
      Weights::fragment(words[j], Weights::columns(scale_words[j], zero_words[j]), w);
      const uint32_t left[2] = {w[0], w[2]}, right[2] = {w[1], w[3]};
#pragma unroll
      for (int i = 0; i < kMSlices; ++i) {
        ptx::mma_m16n8k16<kDtype>(acc[i][2 * j], a[i], left);
        ptx::mma_m16n8k16<kDtype>(acc[i][2 * j + 1], a[i], right);
      }
    }
  }
}

// Grid (gemm_blocks, splits), kBlockThreads threads, Stage::kSharedBytes of shared memory.
template <Dtype kDtype, int kBits, Dequant kDequant, bool kAsymmetric, int kMSlices>
__global__ void __launch_bounds__(kBlockThreads) gemm_kernel(GemmArguments args, int splits) {
  using Layout = Stage<kBits, kMSlices, kAsymmetric>;
  constexpr int kStages = Layout::kCount;
  uint8_t* const shared = ptx::dynamic_shared();

  const int warp = ptx::tid_x() / kWarp, lane = ptx::tid_x() % kWarp;
  // Row tiles vary fastest: blocks that run together read the same weights, from L2.
  const int m_tiles = div_up(args.m, Layout::kRows);
  const int m0 = ptx::ctaid_x() % m_tiles * Layout::kRows;
  const int n_tile = ptx::ctaid_x() / m_tiles * kBlockWarps + warp;
  const bool has_tile = n_tile < args.padded_n / kTile;  // a warp past N only helps to load A

  const int split = ptx::ctaid_y();
  const int64_t k_tiles = args.padded_k / kTile;
  const int first = static_cast<int>(k_tiles * split / splits);
  const int last = static_cast<int>(k_tiles * (split + 1) / splits);

  const int copy_bytes = activation_copy_bytes(args);
  const uint64_t policy = ptx::createpolicy_evict_first();
  auto stage_of = [&](int k_tile) { return shared + (k_tile - first) % kStages * Layout::kBytes; };
  auto load = [&](int k_tile) {
    if (k_tile < last) {
      uint8_t* stage = stage_of(k_tile);
      if (has_tile) {
        load_weights<kBits, kAsymmetric, Layout>(args, policy, stage, warp, lane, n_tile, k_tile);
      }
      load_activations<Layout::kRows>(args, copy_bytes, stage + Layout::kActivations, m0, k_tile);
    }
    // An empty group past the end keeps "all but the newest kStages - 2" meaning the same stage.
    ptx::cp_async_commit_group();
  };

  float acc[kMSlices][8][4] = {};
#pragma unroll
  for (int ahead = 0; ahead < kStages - 1; ++ahead) load(first + ahead);
  for (int k_tile = first; k_tile < last; ++k_tile) {
    ptx::cp_async_wait_group<kStages - 2>();
    // Everyone's copies of this stage have landed, and everyone is done with the stage before it,
    // which the next load overwrites.
    ptx::bar_sync();
    load(k_tile + kStages - 1);
    if (has_tile) {
      multiply_stage<kDtype, kBits, kDequant, kAsymmetric, kMSlices>(stage_of(k_tile), warp, lane,
                                                                     acc);
    }
  }
  // All copies have landed: only empty groups came after the last tile's.
  if (!has_tile) return;

  const int g = lane / 4, t = lane % 4;
#pragma unroll
  for (int i = 0; i < kMSlices; ++i) {
#pragma unroll
    for (int row_half = 0; row_half < 2; ++row_half) {
      const int row = m0 + 16 * i + 8 * row_half + g;
      if (row >= args.m) continue;
#pragma unroll
      for (int block = 0; block < 8; ++block) {
        const int n = n_tile * kTile + 8 * block + 2 * t;
        const float low = acc[i][block][2 * row_half], high = acc[i][block][2 * row_half + 1];
        if (splits == 1) {
          store_pair<kDtype>(args, row, n, low, high);
        } else {
          float* partial = partial_row(args, split, row) + n;
          partial[0] = low;
          partial[1] = high;
        }
      }
    }
  }
}

constexpr int kReduceThreads = 256;
constexpr int kReduceColumns = 2 * kReduceThreads;

constexpr int64_t reduce_blocks(int m, int n) {
  return static_cast<int64_t>(m) * div_up(n, kReduceColumns);
}

// Adds the partials of all splits in the order of K, a pair of columns per thread.
// Grid (reduce_blocks), kReduceThreads threads.
template <Dtype kDtype>
__global__ void __launch_bounds__(kReduceThreads) reduce_kernel(GemmArguments args, int splits) {
  const int column_blocks = div_up(args.n, kReduceColumns);
  const int row = ptx::ctaid_x() / column_blocks;
  const int n = ptx::ctaid_x() % column_blocks * kReduceColumns + 2 * ptx::tid_x();
  if (n >= args.n) return;
  float low = 0.0f, high = 0.0f;
  for (int split = 0; split < splits; ++split) {
    const float* partial = partial_row(args, split, row) + n;
    low += partial[0];
    high += partial[1];
  }
  store_pair<kDtype>(args, row, n, low, high);
}

}  // namespace padmarlin
