// SPDX-License-Identifier: Apache-2.0
// How a probe is launched: nvcc's half on a device, g++'s on the emulator. Both wait for its end
// and return null, or what went wrong.
#pragma once

#include <ptx/qualifiers.cuh>

#if defined(__CUDACC__)

namespace padmarlin::conformance {

template <typename... Parameters, typename... Arguments>
const char* launch(const char*, int blocks, int threads, int shared_bytes,
                   void (*kernel)(Parameters...), Arguments... arguments) {
  kernel<<<blocks, threads, shared_bytes>>>(arguments...);
  cudaError_t error = cudaGetLastError();
  if (error == cudaSuccess) error = cudaDeviceSynchronize();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace padmarlin::conformance

#else

#include <string>

namespace padmarlin::conformance {

template <typename... Parameters, typename... Arguments>
const char* launch(const char* name, int blocks, int threads, int shared_bytes,
                   void (*kernel)(Parameters...), Arguments... arguments) {
  emulator::LaunchOptions options;
  options.delivery = emulator::Delivery::kLate;
  try {
    const auto bytes = static_cast<size_t>(shared_bytes);
    emulator::launch({name, blocks, 1, threads, bytes}, options, [&] { kernel(arguments...); });
    return nullptr;
  } catch (const emulator::LaunchError& error) {
    static thread_local std::string message;
    message = error.what();
    return message.c_str();
  }
}

}  // namespace padmarlin::conformance

#endif
