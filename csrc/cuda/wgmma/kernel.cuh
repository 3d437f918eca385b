// SPDX-License-Identifier: Apache-2.0
// The wgmma gemm, sm_90a: out^T = dequantize(weight)^T a^T + bias, the dequantized weights being
// the register operand. One warpgroup brings, two compute; docs/kernel-wgmma.md draws it.
#pragma once

#include <ptx/barrier.cuh>
#include <ptx/bulk_copy.cuh>
#include <ptx/register_budget.cuh>
#include <ptx/special_registers.cuh>
#include <ptx/tma.cuh>

#include "cuda/fixup.cuh"
#include "cuda/overlap.cuh"
#include "cuda/wgmma/consumer.cuh"
#include "cuda/wgmma/epilogue.cuh"
#include "cuda/wgmma/producer.cuh"

namespace padmarlin::wgmma {

template <Dtype kDtype, int kBits, Dequant kDequant, bool kAsymmetric, int kRows>
PADMARLIN_DEVICE void consume(const GemmArguments& args, const GemmChoice& choice,
                              const Shared<kRows, kBits, kAsymmetric>& shared, const Lane& lane,
                              int block) {
  typename Shared<kRows, kBits, kAsymmetric>::Position position;
  float acc[2][kRows / 2];
  const int segments = num_segments(choice.partition, block);
#pragma unroll 1
  for (int index = 0; index < segments; ++index) {
    const Segment part = segment(choice.partition, block, index);
    const TilePosition tile = tile_position(part.tile, choice.m_tiles, choice.n_tiles, choice.band);
    multiply_segment<kDtype, kBits, kDequant, kAsymmetric, kRows>(
        shared, lane, part.k_end - part.k_begin, position, acc);
    if (!part.whole()) {
      const auto sync = [] { ptx::bar_sync(kConsumersBarrier, kConsumers * kWarpgroup); };
      const int thread = lane.consumer * kWarpgroup + lane.warp * kWarp + lane.lane;
      if (!add_partials(SplitWorkspace{args.partials, args.counters}, choice.partition, part,
                        kConsumers * kWarpgroup, thread, acc, kRows / 4, shared.last_to_come(),
                        sync)) {
        continue;
      }
    }
    store_sums<kDtype, kRows>(args, lane, shared.turn(lane.consumer), tile.m * kRows,
                              (tile.n * kBlockTiles + lane.consumer * kTilesPerConsumer) * kTile,
                              acc);
  }
}

// Grid (partition.blocks), kThreads threads, shared_layout(..).bytes of shared memory.
template <Dtype kDtype, int kBits, Dequant kDequant, bool kAsymmetric, int kRows>
__global__ void __launch_bounds__(kThreads, 1)
    wgmma_kernel(PADMARLIN_GRID_CONSTANT GemmArguments args,
                 PADMARLIN_GRID_CONSTANT GemmChoice choice,
                 PADMARLIN_GRID_CONSTANT ptx::TensorMap activations) {
  const Shared<kRows, kBits, kAsymmetric> shared{ptx::dynamic_shared()};
  const int thread = ptx::tid_x(), block = ptx::ctaid_x();
  const int warpgroup = thread / kWarpgroup, warp = thread % kWarpgroup / kWarp;
  if (thread == 0) {
    shared.make_barriers();
    ptx::prefetch_tensor_map(activations);  // a parameter: no kernel in front writes it
  }
  ptx::bar_sync();
  wait_for_previous_kernel();
  if (warpgroup == 0) {
    ptx::give_registers<kProducerRegisters>();
    if (warp == 0 && ptx::elect_sync()) {
      produce<kRows, kBits, kAsymmetric>(args, choice, activations, shared, block);
    }
  } else {
    ptx::take_registers<kConsumerRegisters>();
    const Lane lane{warpgroup - 1, warp, thread % kWarp};
    consume<kDtype, kBits, kDequant, kAsymmetric, kRows>(args, choice, shared, lane, block);
  }
}

}  // namespace padmarlin::wgmma
