// SPDX-License-Identifier: Apache-2.0
// What every device header starts with. All of csrc/cuda/ptx has a host twin of the same name and
// signatures in tests/emulator/ptx; kernels say <ptx/...> and the include path decides which.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#define PADMARLIN_DEVICE __device__ __forceinline__

// Whether the instructions that begin with sm_90 (mbarrier, bulk copies) and those of sm_90a alone
// (wgmma, setmaxnreg) exist in this compilation. Where they do not, their functions trap: kernels
// that use them are not launched there.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
#define PADMARLIN_HAS_SM90 1
#else
#define PADMARLIN_HAS_SM90 0
#endif
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define PADMARLIN_HAS_SM90A 1
#else
#define PADMARLIN_HAS_SM90A 0
#endif
