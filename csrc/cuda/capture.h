// SPDX-License-Identifier: Apache-2.0
// What a first call does once (allocate, zero, load code) may happen while a graph is captured.
#pragma once

#include <cuda_runtime_api.h>

namespace padmarlin {

// While one lives, this thread may make calls that captures forbid (cudaMalloc, the loading of a
// module), although one is in progress somewhere: they have nothing to do with the stream that
// captures. Without it such a call fails and ends the capture.
class CaptureRelaxed {
 public:
  CaptureRelaxed() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  ~CaptureRelaxed() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  CaptureRelaxed(const CaptureRelaxed&) = delete;
  CaptureRelaxed& operator=(const CaptureRelaxed&) = delete;

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

}  // namespace padmarlin
