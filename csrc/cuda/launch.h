// SPDX-License-Identifier: Apache-2.0
// One way to launch a kernel: eager or captured, after the previous kernel's end or overlapping it.
// What the runtime must be told of a kernel is told once for each device, not per call.
#pragma once

#include <cuda_runtime.h>

#include <atomic>
#include <cstdint>

#include "cuda/capture.h"

namespace padmarlin {

struct LaunchConfig {
  int blocks, threads, shared_bytes;
  // Programmatic dependent launch (sm_90 and up): blocks may start as soon as the kernel before
  // lets them. Only for kernels that call wait_for_previous_kernel (cuda/overlap.cuh).
  bool overlaps_previous;
};

// What a kernel may do on the current device, asked and told once for each.
//   - Above 48 KB it must be told how much shared memory it may use: all there is, for the shape of
//     its blocks varies.
//   - Only code for sm_90 and up holds griddepcontrol.wait. A library without it runs on an sm_90
//     all the same, from PTX for an older one: such a kernel must not start early.
template <auto kKernel>
cudaError_t prepare(bool& waits_for_previous) {
  static std::atomic<uint64_t> prepared{0}, waiting{0};
  int device = 0;
  if (cudaError_t error = cudaGetDevice(&device); error != cudaSuccess) return error;
  const uint64_t mask = device < 64 ? uint64_t{1} << device : 0;
  if ((prepared.load(std::memory_order_acquire) & mask) != 0) {
    waits_for_previous = (waiting.load(std::memory_order_relaxed) & mask) != 0;
    return cudaSuccess;
  }
  // The first question loads the kernel's code, which a capture may forbid.
  const CaptureRelaxed relaxed;
  int bytes = 0;
  cudaError_t error =
      cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (error != cudaSuccess) return error;
  error = cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error != cudaSuccess) return error;
  cudaFuncAttributes code;
  if (error = cudaFuncGetAttributes(&code, kKernel); error != cudaSuccess) return error;
  waits_for_previous = code.ptxVersion >= 90;
  if (waits_for_previous) waiting.fetch_or(mask, std::memory_order_relaxed);
  prepared.fetch_or(mask, std::memory_order_release);
  return cudaSuccess;
}

template <auto kKernel, typename... Arguments>
cudaError_t launch(const LaunchConfig& config, cudaStream_t stream, const Arguments&... arguments) {
  bool waits_for_previous = false;
  if (cudaError_t error = prepare<kKernel>(waits_for_previous); error != cudaSuccess) return error;
  cudaLaunchAttribute overlap = {};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t launched = {};
  launched.gridDim = dim3(static_cast<unsigned>(config.blocks));
  launched.blockDim = dim3(static_cast<unsigned>(config.threads));
  launched.dynamicSmemBytes = static_cast<size_t>(config.shared_bytes);
  launched.stream = stream;
  launched.attrs = &overlap;
  launched.numAttrs = config.overlaps_previous && waits_for_previous ? 1 : 0;
  return cudaLaunchKernelEx(&launched, kKernel, arguments...);
}

// A kernel that needs nothing of `prepare` (at most 48 KB of dynamic shared memory), after the
// previous one's end. Not <<<>>>: that leaves its error to cudaGetLastError, which also hands out
// one that an earlier call has already returned.
template <typename Arguments>
cudaError_t launch_plain(void (*kernel)(Arguments), int64_t blocks, int threads, void* stream,
                         const Arguments& arguments, int shared_bytes = 0) {
  cudaLaunchConfig_t launched = {};
  launched.gridDim = dim3(static_cast<unsigned>(blocks));
  launched.blockDim = dim3(static_cast<unsigned>(threads));
  launched.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
  launched.stream = static_cast<cudaStream_t>(stream);
  const CaptureRelaxed relaxed;  // the first launch loads the kernel's code
  return cudaLaunchKernelEx(&launched, kernel, arguments);
}

}  // namespace padmarlin
