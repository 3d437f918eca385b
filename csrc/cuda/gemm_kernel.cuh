// SPDX-License-Identifier: Apache-2.0
// The mma.sync gemm, sm_80 and up: out = a @ dequantize(weight) + bias for any m, computed as
// out^T = W^T a^T: a packed word is the 16-row operand A of the mma as it stands, and M goes in
// steps of 8. docs/kernel-mma.md explains and draws it.
//
// A block computes the segments (an output tile, a run of its k-tiles) that the partition gives it.
// Each group of its warps streams every k_groups-th k-tile through a ring of cp.async stages of its
// own, across the ends of segments; the groups meet only to add their sums.
#pragma once

#include <ptx/barrier.cuh>
#include <ptx/bits.cuh>
#include <ptx/cp_async.cuh>
#include <ptx/mma.cuh>
#include <ptx/shared_memory.cuh>
#include <ptx/special_registers.cuh>

#include "core/stream_k.h"
#include "cuda/dequant.cuh"
#include "cuda/epilogue.cuh"
#include "cuda/feeder.cuh"
#include "cuda/gemm.h"
#include "cuda/overlap.cuh"
#include "cuda/stage.cuh"

namespace padmarlin {

// A number that is the same for the whole warp, in a register: ptxas cannot compute anew what a
// shuffle gave, as it does with whatever comes from the kernel's arguments.
PADMARLIN_DEVICE int kept(int value, int lane) { return ptx::shfl(lane == 0 ? value : 0, 0); }

// Where a lane finds its operands in a stage.
struct LaneOffsets {
  int weights, scales, activations;
};

template <typename Layout, int kMSteps>
PADMARLIN_DEVICE LaneOffsets lane_offsets(int column_warp, int lane) {
  const int part = Layout::kWarps + column_warp * Layout::kWarpBytes;
  // ldmatrix: the four 8 x 8 matrices are k-halves of one step and k-slice after the other; of a
  // single step two k-slices, of more steps two steps.
  const int row = kMSteps == 1 ? lane % 8 : lane / 16 * 8 + lane % 8;
  const int chunk = kMSteps == 1 ? lane / 8 : lane / 8 % 2;
  return {part + lane * 16, part + Layout::kScales + lane / 4 * 16, activation_offset(row, chunk)};
}

// Operand B of every step for one k-slice.
template <int kMSteps>
PADMARLIN_DEVICE void load_activations(const uint8_t* activations, int slice,
                                       uint32_t (&b)[kMSteps][2]) {
  uint32_t matrices[4];
#pragma unroll
  for (int i = 0; i < kMSteps; i += 2) {
    ptx::ldmatrix_x4(matrices, flip(activations, slice * 32) + i * kStepRows * 128);
    b[i][0] = matrices[0], b[i][1] = matrices[1];
    b[i + 1][0] = matrices[2], b[i + 1][1] = matrices[3];
  }
}

// The products of one k-tile.
template <Dtype kDtype, int kBits, Dequant kDequant, bool kAsymmetric, int kMSteps>
PADMARLIN_DEVICE void multiply_stage(const uint8_t* stage, const LaneOffsets& lane_offset,
                                     Sums<kMSteps>& sums) {
  using Layout = Stage<kBits, kAsymmetric, kMSteps>;
  using Weights = Dequantizer<kDtype, kBits, kDequant, kAsymmetric>;
  const uint8_t* weights = stage + lane_offset.weights;
  const uint8_t* scales = stage + lane_offset.scales;
  const uint8_t* activations = stage + lane_offset.activations;
  uint32_t b[kMSteps][2], matrices[4];

#pragma unroll
  for (int slice = 0; slice < kSlicesPerTile; ++slice) {
    if constexpr (kMSteps > 1) {
      load_activations<kMSteps>(activations, slice, b);
    } else {
      if (slice % 2 == 0) {
        ptx::ldmatrix_x4(matrices, flip(activations, slice * 32));
      }
      b[0][0] = matrices[slice % 2 * 2], b[0][1] = matrices[slice % 2 * 2 + 1];
    }
    // Word j of each serves columns 16j + g and 16j + g + 8.
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
#pragma unroll
      for (int i = 0; i < kMSteps; ++i) ptx::mma_m16n8k16<kDtype>(sums[i][j], w, b[i]);
    }
  }
}

// Grid (partition.blocks), block_threads(shape) threads, shared_bytes() of shared memory.
template <Dtype kDtype, int kBits, Dequant kDequant, bool kAsymmetric, int kMSteps>
__global__ void __launch_bounds__(kMaxBlockThreads, min_blocks_per_sm(kBits, kMSteps))
    gemm_kernel(GemmArguments args, GemmChoice choice) {
  using Layout = Stage<kBits, kAsymmetric, kMSteps>;
  const int warp = ptx::tid_x() / kWarp, lane = ptx::tid_x() % kWarp;
  const int column_warps = choice.shape.column_warps, k_groups = choice.shape.k_groups;
  const int k_group = warp / column_warps, column_warp = warp % column_warps;

  // Held in registers rather than computed anew for each tile.
  const int bytes = ptx::opaque(stage_bytes(kBits, kAsymmetric, {kMSteps, column_warps, k_groups}));
  const int group_threads = kept(column_warps * kWarp, lane);
  const int group_barrier = kept(1 + k_group, lane);
  const int k_step = kept(k_groups, lane);
  uint8_t* const ring = ptx::dynamic_shared() + ptx::opaque(k_group * kStages * bytes);
  const LaneOffsets lane_offset = lane_offsets<Layout, kMSteps>(column_warp, lane);

  const Partition& partition = choice.partition;
  const int block = ptx::ctaid_x(), n_tiles = args.padded_n / kTile;
  Segment run = first_segment(partition, block);
  if (const int n_tile = tile_of(choice, run).n * column_warps + column_warp; n_tile < n_tiles) {
    prefetch_weights<kBits, kStages - 1>(args.qweight, partition.k_tiles, n_tile,
                                         run.k_begin + k_group, run.k_end, k_groups, lane);
  }
  wait_for_previous_kernel();

  Feeder<kBits, kAsymmetric, kMSteps> feeder(args, choice, run, k_group, k_step, column_warp, lane,
                                             lane_offset.weights);
  static_assert((kStages & (kStages - 1)) == 0, "slots are counted modulo a power of two");
  int free_slot = 0;                    // the one to fill next; the one after it is the oldest
  int lead = (kStages - 1) * k_groups;  // so many k-tiles are loaded before the first product

#pragma unroll 1
  for (int index = 0;;) {
    // A warp past N multiplies nothing, it only helps to load A.
    const int n_tile = tile_of(choice, run).n * column_warps + column_warp;
    const int first = n_tile < n_tiles ? run.k_begin : run.k_end;

    Sums<kMSteps> sums = {};
#pragma unroll 1
    for (int k_tile = run.k_begin + k_group - lead; k_tile < run.k_end; k_tile += k_step) {
      ptx::cp_async_wait_group<kStages - 2>();
      // The group's copies of this stage have landed, and the group is done with the stage before
      // it, which the next load fills.
      ptx::bar_sync(group_barrier, group_threads);
      uint8_t* const free_stage = ring + free_slot * bytes;
      free_slot = (free_slot + 1) & (kStages - 1);
      const int unfinished = feeder.begin(free_stage);
      if (k_tile >= first) {
        multiply_stage<kDtype, kBits, kDequant, kAsymmetric, kMSteps>(ring + free_slot * bytes,
                                                                      lane_offset, sums);
      }
      if (unfinished != 0) feeder.end(free_stage);
    }
    lead = 0;

    // Asked again: through the loop above its numbers would cost registers.
    const Segment done = segment(partition, block, ptx::opaque(index));
    Epilogue<kDtype, kMSteps>{args, choice, done, tile_of(choice, done), k_group, column_warp, lane}
        .run(sums, ptx::dynamic_shared() + k_groups * kStages * bytes);
    if (++index >= num_segments(partition, ptx::opaque(block))) break;
    run = segment(partition, block, index);
  }
}

}  // namespace padmarlin
