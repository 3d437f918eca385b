// SPDX-License-Identifier: Apache-2.0
// One way to launch a kernel: eager or captured, after the previous kernel's end or overlapping it.
// What the runtime must be told of a kernel is told once for each device, not per call.
#pragma once

#include <cuda_runtime.h>

#include <atomic>
#include <cstdint>

namespace padmarlin {

struct LaunchConfig {
  int blocks, threads, shared_bytes;
  // Programmatic dependent launch (sm_90 and up): blocks may start as soon as the kernel before
  // lets them. Only for kernels that call wait_for_previous_kernel (cuda/overlap.cuh).
  bool overlaps_previous;
};

// Above 48 KB a kernel must be told, once per device, how much shared memory it may use: all there
// is, for the shape of its blocks varies.
template <auto kKernel>
cudaError_t allow_shared_memory() {
  static std::atomic<uint64_t> devices_done{0};
  int device = 0;
  if (cudaError_t error = cudaGetDevice(&device); error != cudaSuccess) return error;
  const uint64_t mask = device < 64 ? uint64_t{1} << device : 0;
  if ((devices_done.load(std::memory_order_relaxed) & mask) != 0) return cudaSuccess;
  int bytes = 0;
  cudaError_t error =
      cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (error != cudaSuccess) return error;
  error = cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error == cudaSuccess) devices_done.fetch_or(mask, std::memory_order_relaxed);
  return error;
}

template <auto kKernel, typename... Arguments>
cudaError_t launch(const LaunchConfig& config, cudaStream_t stream, const Arguments&... arguments) {
  if (cudaError_t error = allow_shared_memory<kKernel>(); error != cudaSuccess) return error;
  cudaLaunchAttribute overlap = {};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t launched = {};
  launched.gridDim = dim3(static_cast<unsigned>(config.blocks));
  launched.blockDim = dim3(static_cast<unsigned>(config.threads));
  launched.dynamicSmemBytes = static_cast<size_t>(config.shared_bytes);
  launched.stream = stream;
  launched.attrs = &overlap;
  launched.numAttrs = config.overlaps_previous ? 1 : 0;
  return cudaLaunchKernelEx(&launched, kKernel, arguments...);
}

}  // namespace padmarlin
