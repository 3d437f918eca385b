// SPDX-License-Identifier: Apache-2.0
// The host's side of the wgmma kernels. No CUDA types beyond the stream; cudaError_t as int.
#pragma once

#include "cuda/gemm.h"

namespace padmarlin::wgmma {

// Whether this library holds the kernels: it was built for sm_90a.
bool is_built();

// As launch_gemm (cuda/gemm.h), for choices of the wgmma family. A's base and row stride are
// multiples of 16 bytes and `columns` is null: cuda/align.h makes such an A of any.
int launch(const GemmArguments& args, const GemmChoice& choice, void* stream);

}  // namespace padmarlin::wgmma
