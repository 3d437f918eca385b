// SPDX-License-Identifier: Apache-2.0
// What every device header starts with. All of csrc/cuda/ptx has a host twin of the same name and
// signatures in tests/emulator/ptx; kernels say <ptx/...> and the include path decides which.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#define PADMARLIN_DEVICE __device__ __forceinline__
