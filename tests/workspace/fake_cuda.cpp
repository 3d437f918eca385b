// SPDX-License-Identifier: Apache-2.0
// csrc/torch/workspace.cpp on a made-up CUDA runtime: the few functions it calls, with the rules
// that a capture imposes on them. What a rule forbids is remembered, and ends the test.
#include <cuda_runtime_api.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "torch/workspace.h"

namespace {

struct UserObject {
  void* data;
  cudaHostFn_t destroy;
};

// The state of the made-up machine. A stream is its id; a graph holds user objects.
std::mutex mutex;
std::map<uint64_t, uint64_t> capture_of_stream;  // absent: it does not capture
std::map<uint64_t, std::vector<UserObject*>> objects_of_graph;
std::vector<std::string> violations;
int allocations = 0;
uint64_t next_stream = 1'000'000;
bool retain_fails = false;
thread_local cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;

uint64_t id_of(cudaStream_t stream) { return reinterpret_cast<uint64_t>(stream); }
cudaStream_t stream_of(uint64_t id) { return reinterpret_cast<cudaStream_t>(id); }

void expect(bool allowed, const char* what) {
  if (!allowed) violations.push_back(what);
}

}  // namespace

extern "C" {

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* other) {
  std::swap(mode, *other);
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  const std::lock_guard lock(mutex);
  expect(capture_of_stream.empty() || mode == cudaStreamCaptureModeRelaxed,
         "cudaMalloc during a capture, in a mode that is not relaxed");
  ++allocations;
  *memory = std::malloc(bytes);
  std::memset(*memory, 0xff, bytes);
  return cudaSuccess;
}

cudaError_t cudaFree(void* memory) {
  std::free(memory);
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  const std::lock_guard lock(mutex);
  expect(flags == cudaStreamNonBlocking, "a stream that waits for the legacy stream");
  *stream = stream_of(++next_stream);
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }

cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t stream) {
  const std::lock_guard lock(mutex);
  expect(id_of(stream) > 1'000'000, "a memset on a stream of the caller");
  std::memset(memory, value, bytes);
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const std::lock_guard lock(mutex);
  expect(id_of(stream) > 1'000'000, "waits for a stream of the caller");
  return cudaSuccess;
}

cudaError_t cudaStreamGetId(cudaStream_t stream, unsigned long long* id) {
  *id = id_of(stream);
  return cudaSuccess;
}

static cudaError_t capture_info(cudaStream_t stream, cudaStreamCaptureStatus* status,
                                unsigned long long* id, cudaGraph_t* graph) {
  const std::lock_guard lock(mutex);
  const auto found = capture_of_stream.find(id_of(stream));
  *status = found == capture_of_stream.end() ? cudaStreamCaptureStatusNone
                                             : cudaStreamCaptureStatusActive;
  if (found == capture_of_stream.end()) return cudaSuccess;
  *id = found->second;
  *graph = reinterpret_cast<cudaGraph_t>(found->second);
  return cudaSuccess;
}

#if CUDART_VERSION >= 13000
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, cudaStreamCaptureStatus* status,
                                     unsigned long long* id, cudaGraph_t* graph,
                                     const cudaGraphNode_t**, const cudaGraphEdgeData**, size_t*) {
  return capture_info(stream, status, id, graph);
}
#else
cudaError_t cudaStreamGetCaptureInfo_v2(cudaStream_t stream, cudaStreamCaptureStatus* status,
                                        unsigned long long* id, cudaGraph_t* graph,
                                        const cudaGraphNode_t**, size_t*) {
  return capture_info(stream, status, id, graph);
}
#endif

cudaError_t cudaUserObjectCreate(cudaUserObject_t* object, void* data, cudaHostFn_t destroy,
                                 unsigned references, unsigned flags) {
  expect(references == 1 && flags == cudaUserObjectNoDestructorSync, "flags of a user object");
  *object = reinterpret_cast<cudaUserObject_t>(new UserObject{data, destroy});
  return cudaSuccess;
}

cudaError_t cudaUserObjectRelease(cudaUserObject_t object, unsigned) {
  auto* const own = reinterpret_cast<UserObject*>(object);
  own->destroy(own->data);
  delete own;
  return cudaSuccess;
}

cudaError_t cudaGraphRetainUserObject(cudaGraph_t graph, cudaUserObject_t object, unsigned,
                                      unsigned flags) {
  const std::lock_guard lock(mutex);
  expect(flags == cudaGraphUserObjectMove, "a reference that nobody gives up");
  if (retain_fails) return cudaErrorInvalidValue;
  objects_of_graph[reinterpret_cast<uint64_t>(graph)].push_back(
      reinterpret_cast<UserObject*>(object));
  return cudaSuccess;
}

const char* cudaGetErrorName(cudaError_t) { return "cudaErrorMadeUp"; }
const char* cudaGetErrorString(cudaError_t) { return "made up"; }

// ---- for the test, by ctypes

// The address of the counters, or 0 if the call threw. Streams are numbers from 1.
uint64_t fake_counters(int device, uint64_t stream, int num_sms, int count) {
  try {
    uint32_t* const counters =
        padmarlin::split_counters("test", device, stream_of(stream), num_sms, count);
    for (int i = 0; i < count; ++i) {
      if (counters[i] != 0) expect(false, "counters that are not zero");
    }
    return reinterpret_cast<uint64_t>(counters);
  } catch (const std::exception&) {
    return 0;
  }
}

void fake_begin_capture(uint64_t stream, uint64_t capture) {
  const std::lock_guard lock(mutex);
  capture_of_stream[stream] = capture;
}

void fake_end_capture(uint64_t stream) {
  const std::lock_guard lock(mutex);
  capture_of_stream.erase(stream);
}

void fake_destroy_graph(uint64_t capture) {
  std::vector<UserObject*> objects;
  {
    const std::lock_guard lock(mutex);
    objects.swap(objects_of_graph[capture]);
  }
  for (UserObject* object : objects) {
    cudaUserObjectRelease(reinterpret_cast<cudaUserObject_t>(object), 1);
  }
}

void fake_retain_fails(bool fails) { retain_fails = fails; }
int fake_allocations() { return allocations; }

// The first rule that was broken, or null.
const char* fake_violation() { return violations.empty() ? nullptr : violations.front().c_str(); }

}  // extern "C"
