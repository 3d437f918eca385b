// SPDX-License-Identifier: Apache-2.0
// What a launch of the wgmma kernel is given, besides a tensor map of A.
#pragma once

#include "core/stream_k.h"
#include "core/wgmma_block.h"
#include "cuda/fixup.cuh"
#include "cuda/gemm.h"

namespace padmarlin::wgmma {

struct Arguments {
  GemmArguments gemm;  // `a` is read through the tensor map: 16-byte aligned base and pitch
  Partition partition;
  SplitWorkspace workspace;
  int m_tiles, n_tiles, band;  // of tile_position
};

}  // namespace padmarlin::wgmma
