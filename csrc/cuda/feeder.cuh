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
  // `first` is the block's first segment; `k_groups` the launch's, in a register.
  PADMARLIN_DEVICE Feeder(const GemmArguments& args, const GemmChoice& choice, const Segment& first,
                          int k_group, int k_groups, int column_warp, int lane, int weights_offset)
      : args_(args),
        choice_(choice),
        k_group_(k_group),
        k_groups_(k_groups),
        column_warp_(column_warp),
        lane_(lane),
        weights_offset_(weights_offset),
        // Of several row tiles, which only the tallest can be, the first should not push out what
        // the others read again.
        policy_(kMSteps < kMaxMSteps || choice.m_tiles == 1 ? ptx::createpolicy_evict_first()
                                                            : ptx::createpolicy_evict_normal()),
        activations_(args, column_warp, choice.shape.column_warps, lane) {
    const int name =
        weights_.first_name(args, first.k_begin + k_group, first.k_end, k_groups, lane);
    enter(first);
    weights_.set_name(name);
    if (k_tile_ >= k_end_) find_segment();
  }

  // Issues the next k-tile's copies. Not 0 if `end` has to follow. (A bool costs instructions.)
  PADMARLIN_DEVICE int begin(uint8_t* stage) {
    int unfinished = 0;
    if (k_tile_ < plain_end_) {
      activations_.load_whole(stage, k_groups_);
      weights_.load(args_, policy_, stage + weights_offset_);
      weights_.advance(k_groups_);
      k_tile_ += k_groups_;
    } else if (k_tile_ < k_end_) {
      unfinished = 1;
      if (activations_.gathers()) {
        activations_.fetch(args_);
      } else {
        activations_.load(args_, k_tile_, stage);
      }
      if (weights_.exist(args_)) weights_.load(args_, policy_, stage + weights_offset_);
    }
    // Past the last tile an empty group: "all but the newest two" always means the same stage.
    ptx::cp_async_commit_group();
    return unfinished;
  }

  // Stores what was gathered, and moves on.
  PADMARLIN_DEVICE void end(uint8_t* stage) {
    if (activations_.gathers()) activations_.store(args_, stage);
    k_tile_ += k_groups_;
    if (k_tile_ >= k_end_) return find_segment();
    weights_.advance(k_groups_);
    activations_.advance(args_, k_tile_, k_groups_);
    if (!activations_.gathers()) find_plain_end();
  }

 private:
  PADMARLIN_DEVICE void enter(const Segment& segment) {
    k_tile_ = segment.k_begin + k_group_;
    k_end_ = segment.k_end;
    if (k_tile_ >= k_end_) return;
    const TilePosition tile = tile_of(choice_, segment);
    const int n_tile = tile.n * choice_.shape.column_warps + column_warp_;
    weights_.seek(args_, n_tile, k_tile_, lane_);
    activations_.seek(args_, tile.m * kMSteps * kStepRows, k_tile_);
    find_plain_end();
  }

  // The next segment that has a k-tile for this group; k_tile_ >= k_end_ if there is none.
  PADMARLIN_DEVICE void find_segment() {
    const int block = ptx::opaque(ptx::ctaid_x());
    const int num_segments = padmarlin::num_segments(choice_.partition, block);
    plain_end_ = 0;
#pragma unroll 1
    while (k_tile_ >= k_end_ && ++index_ < num_segments) {
      enter(segment(choice_.partition, block, index_));
    }
  }

  // Nearly all tiles are plain: whole copies alone, and another tile of the segment follows.
  PADMARLIN_DEVICE void find_plain_end() {
    const int whole = activations_.whole_end(args_, k_tile_), last = k_end_ - k_groups_;
    plain_end_ = !weights_.exist(args_) ? 0 : whole < last ? whole : last;
  }

  const GemmArguments& args_;
  const GemmChoice& choice_;
  const int k_group_, k_groups_, column_warp_, lane_;
  const int weights_offset_;  // of the lane's place in a stage
  const uint64_t policy_;
  int index_ = 0;
  int k_tile_ = 0, k_end_ = 0;
  int plain_end_ = 0;  // from k_tile_ on, the tiles before this one are plain
  WeightLoader<kBits, kAsymmetric> weights_;
  ActivationLoader<kMSteps> activations_;
};

}  // namespace padmarlin
