// SPDX-License-Identifier: Apache-2.0
// What a group of warps multiplies next: walks the k-tiles of its segments, some stages ahead of
// the products, and fills stages with them.
#pragma once

#include <ptx/bits.cuh>
#include <ptx/cp_async.cuh>
#include <ptx/special_registers.cuh>

#include "core/stream_k.h"
#include "cuda/activations.cuh"
#include "cuda/gemm.h"
#include "cuda/stage.cuh"
#include "cuda/weights.cuh"

namespace padmarlin {

PADMARLIN_DEVICE TilePosition tile_of(const GemmChoice& choice, const Segment& segment) {
  return tile_position(segment.tile, choice.m_tiles, choice.n_tiles, choice.band);
}

// One lane's part. For each stage to fill: begin, the products of another stage, end.
template <int kBits, bool kAsymmetric, int kMSteps>
class Feeder {
 public:
  PADMARLIN_DEVICE Feeder(const GemmArguments& args, const GemmChoice& choice, int k_group,
                          int column_warp, int lane, int weights_offset)
      : args_(args),
        choice_(choice),
        k_group_(k_group),
        column_warp_(column_warp),
        lane_(lane),
        weights_offset_(weights_offset),
        // Of several row tiles, which only the tallest can be, the first should not push out what
        // the others read again.
        policy_(kMSteps < kMaxMSteps || choice.m_tiles == 1 ? ptx::createpolicy_evict_first()
                                                            : ptx::createpolicy_evict_normal()),
        activations_(args, column_warp, choice.shape.column_warps, lane) {
    find_segment();
  }

  // Issues the next k-tile's copies.
  PADMARLIN_DEVICE void begin(uint8_t* stage) {
    if (k_tile_ < k_end_) {
      if (has_weights_ != 0) weights_.load(args_, policy_, stage + weights_offset_);
      if (activations_.gathers()) {
        activations_.fetch(args_);
      } else {
        activations_.load(args_, k_tile_, stage);
      }
    }
    // Past the last tile an empty group: "all but the newest two" always means the same stage.
    ptx::cp_async_commit_group();
  }

  // Stores what was gathered, and moves on.
  PADMARLIN_DEVICE void end(uint8_t* stage) {
    if (k_tile_ >= k_end_) return;
    if (activations_.gathers()) activations_.store(args_, stage);
    const int step = choice_.shape.k_groups;
    k_tile_ += step;
    if (k_tile_ >= k_end_) return find_segment();
    weights_.advance(args_, k_tile_, step, lane_);
    activations_.advance(args_, k_tile_, step);
  }

 private:
  // The next segment that has a k-tile for this group; k_tile_ >= k_end_ if there is none.
  PADMARLIN_DEVICE void find_segment() {
    const int block = ptx::opaque(ptx::ctaid_x());
    const int num_segments = padmarlin::num_segments(choice_.partition, block);
#pragma unroll 1
    while (index_ < num_segments) {
      const Segment segment = padmarlin::segment(choice_.partition, block, index_++);
      k_tile_ = segment.k_begin + k_group_;
      k_end_ = segment.k_end;
      if (k_tile_ >= k_end_) continue;
      const TilePosition tile = tile_of(choice_, segment);
      const int n_tile = tile.n * choice_.shape.column_warps + column_warp_;
      has_weights_ = n_tile < args_.padded_n / kTile;  // a warp past N only helps to load A
      weights_.seek(args_, n_tile, k_tile_, lane_);
      activations_.seek(args_, tile.m * kMSteps * kStepRows, k_tile_);
      return;
    }
  }

  const GemmArguments& args_;
  const GemmChoice& choice_;
  const int k_group_, column_warp_, lane_;
  const int weights_offset_;  // of the lane's place in a stage
  const uint64_t policy_;
  int index_ = 0;
  int k_tile_ = 0, k_end_ = 0;
  int has_weights_ = 0;
  WeightLoader<kBits, kAsymmetric> weights_;
  ActivationLoader<kMSteps> activations_;
};

}  // namespace padmarlin
