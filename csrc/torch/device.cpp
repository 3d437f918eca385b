// SPDX-License-Identifier: Apache-2.0
#include "torch/device.h"

#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <torch/csrc/stable/c/shim.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdlib>
#include <exception>
#include <string_view>
#include <vector>

#include "core/devices.h"
#include "cuda/wgmma/launch.h"

namespace padmarlin {
namespace {

constexpr int kLeastMajor = 8;  // cp.async and mma.sync of bf16 begin with sm_80

struct Properties {
  int major, minor;
  Device device;
};

int attribute(cudaDeviceAttr name, int index) {
  int value = 0;
  const cudaError_t status = cudaDeviceGetAttribute(&value, name, index);
  STD_TORCH_CHECK(status == cudaSuccess, "padmarlin: cannot read the properties of cuda:", index,
                  ": ", cudaGetErrorString(status));
  return value;
}

std::vector<Properties> query_all_devices() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  STD_TORCH_CHECK(status == cudaSuccess,
                  "padmarlin: cannot count the CUDA devices: ", cudaGetErrorString(status),
                  "; `padmarlin env` shows the driver needed");
  std::vector<Properties> all;
  for (int i = 0; i < count; ++i) {
    const int major = attribute(cudaDevAttrComputeCapabilityMajor, i);
    const int minor = attribute(cudaDevAttrComputeCapabilityMinor, i);
    // Two transfers a clock; kHz and bits to GB/s.
    const double told = 2.0 * attribute(cudaDevAttrMemoryClockRate, i) *
                        attribute(cudaDevAttrGlobalMemoryBusWidth, i) / 8 / 1e6;
    all.push_back({major,
                   minor,
                   {.num_sms = attribute(cudaDevAttrMultiProcessorCount, i),
                    .architecture = 10 * major + minor,
                    .shared_bytes = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, i),
                    .sm_shared_bytes = attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor, i),
                    // A virtual machine may hide the clock.
                    .dram_gbps = told > 0 ? static_cast<int>(told) : usual_gbps(10 * major + minor),
                    .wgmma = wgmma::is_built()}});
  }
  return all;
}

// Asked once per process: an attribute costs more than the rest of a small call. A query that
// throws is not remembered (that is how static initialisation works).
const Properties& device_properties(int index) {
  static const std::vector<Properties> all = query_all_devices();
  STD_TORCH_CHECK(index >= 0 && index < static_cast<int>(all.size()),
                  "padmarlin: no device cuda:", index, " among the ", all.size(),
                  " that the CUDA runtime sees");
  return all[index];
}

std::string device_name(int index) {
  cudaDeviceProp properties;
  return cudaGetDeviceProperties(&properties, index) == cudaSuccess ? properties.name : "unknown";
}

const char* advice(cudaError_t status) {
  switch (status) {
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidDeviceFunction:
      return "rebuild padmarlin with this GPU in TORCH_CUDA_ARCH_LIST";
    case cudaErrorInsufficientDriver:
    case cudaErrorUnsupportedPtxVersion:
      return "update the NVIDIA driver; `padmarlin env` shows the one needed";
    case cudaErrorInvalidValue:  // from the encoder of tensor maps, or of the launch's own numbers
    case cudaErrorInvalidConfiguration:
      return "this is a bug of padmarlin: report this message with `padmarlin env` and a.stride(); "
             "PADMARLIN_KERNEL=mma may get around it";
    default:
      return "an earlier kernel of any library may have failed: run with CUDA_LAUNCH_BLOCKING=1";
  }
}

}  // namespace

CurrentDevice::CurrentDevice(const char* function, int index)
    : guard_(index), function_(function), index_(index) {
  // The static runtime in this library is not the one that the guard spoke to. Both would follow
  // the driver's current context, but a thread that never used CUDA has none yet.
  const cudaError_t status = cudaSetDevice(index);
  STD_TORCH_CHECK(status == cudaSuccess, function, ": cannot use cuda:", index, ": ",
                  cudaGetErrorString(status), "; ", advice(status));
  const Properties& device = device_properties(index);
  STD_TORCH_CHECK(device.major >= kLeastMajor, function, ": cuda:", index, " (", device_name(index),
                  ") has compute capability ", device.major, ".", device.minor,
                  ", expected 8.0 or newer (Ampere); run on the CPU or on a newer GPU");
}

void* CurrentDevice::stream() const {
  // This shim stands in libtorch_cuda, which a CPU-only torch lacks: a link to it would keep the
  // library from loading there. It is found at run time, in the copy that torch has loaded.
  using GetStream = AOTITorchError (*)(int32_t, void**);
  static const auto get_stream = [] {
    void* library = dlopen("libtorch_cuda.so", RTLD_NOLOAD | RTLD_LAZY);
    return reinterpret_cast<GetStream>(
        dlsym(library ? library : RTLD_DEFAULT, "aoti_torch_get_current_cuda_stream"));
  }();
  STD_TORCH_CHECK(get_stream, function_, ": this torch has no CUDA; install a CUDA build of torch");
  void* stream = nullptr;
  STD_TORCH_CHECK(get_stream(index_, &stream) == AOTI_TORCH_SUCCESS, function_,
                  ": torch does not tell the current stream of cuda:", index_);
  return stream;
}

Device CurrentDevice::properties() const { return device_properties(index_).device; }

bool CurrentDevice::overlaps_kernels() const {
  static const bool wanted = [] {
    const char* const value = std::getenv("PADMARLIN_PDL");
    return value != nullptr && std::string_view(value) == "1";
  }();
  return wanted && device_properties(index_).major >= 9;
}

void refuse_launch(const char* function, int status, const std::string& problem) {
  const auto error = static_cast<cudaError_t>(status);
  STD_TORCH_CHECK(false, function, ": the launch failed for ", problem, ": ",
                  cudaGetErrorName(error), ": ", cudaGetErrorString(error), "; ", advice(error));
  __builtin_unreachable();  // STD_TORCH_CHECK has thrown
}

}  // namespace padmarlin

// For padmarlin/_extension.py: architecture, SMs and GB/s, into three numbers. 0: there is no such
// device, or no driver.
extern "C" __attribute__((visibility("default"))) int padmarlin_device_numbers(int index,
                                                                               int* numbers) {
  try {
    const padmarlin::Device& device = padmarlin::device_properties(index).device;
    numbers[0] = device.architecture, numbers[1] = device.num_sms, numbers[2] = device.dram_gbps;
    return 1;
  } catch (const std::exception&) {
    return 0;
  }
}
