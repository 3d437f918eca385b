// SPDX-License-Identifier: Apache-2.0
// The host's side of the wgmma kernels. No CUDA types beyond the stream; cudaError_t as int.
#pragma once

#include "cuda/gemm.h"
#include "cuda/wgmma/arguments.h"

namespace padmarlin::wgmma {

// Whether this library holds the kernels: it was built for sm_90a.
bool is_built();

// What is decided about a launch: rows of a block (one of kBlockRows), and who computes what.
struct Plan {
  int rows;
  Partition partition;
  int m_tiles, n_tiles, band;
};

// As launch_gemm (cuda/gemm.h). A's base and row stride are multiples of 16 bytes and `columns` is
// null: cuda/align.h makes such an A of any.
int launch(const GemmArguments& gemm, const Plan& plan, const SplitWorkspace& workspace,
           void* stream);

}  // namespace padmarlin::wgmma
