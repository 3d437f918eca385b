// SPDX-License-Identifier: Apache-2.0
#include "torch/workspace.h"

#include <cuda_runtime_api.h>
#include <torch/headeronly/util/Exception.h>

#include <map>
#include <memory>
#include <mutex>

#include "core/counter_slots.h"
#include "core/select_gemm.h"
#include "cuda/capture.h"

namespace padmarlin {
namespace {

void check(const char* function, cudaError_t status, const char* doing) {
  STD_TORCH_CHECK(status == cudaSuccess, function, ": ", doing, ": ", cudaGetErrorName(status),
                  ": ", cudaGetErrorString(status));
}

// Never destroyed: graphs may outlive all static objects.
CounterSlots& slots_of(int device) {
  static auto& all = *new std::map<int, CounterSlots>();
  static auto& mutex = *new std::mutex();
  const std::lock_guard lock(mutex);
  return all[device];
}

// Zeroed on a stream of its own: a memset on the capturing stream would become part of the graph,
// one on the legacy stream would end the capture.
uint32_t* zeroed_memory(const char* function, size_t bytes) {
  const CaptureRelaxed relaxed;
  cudaStream_t own = nullptr;
  check(function, cudaStreamCreateWithFlags(&own, cudaStreamNonBlocking),
        "cannot create a stream to zero its counters");
  const std::unique_ptr<CUstream_st, decltype(&cudaStreamDestroy)> owner(own, &cudaStreamDestroy);
  void* memory = nullptr;
  check(function, cudaMalloc(&memory, bytes), "cannot allocate its counters");
  cudaError_t status = cudaMemsetAsync(memory, 0, bytes, own);
  if (status == cudaSuccess) status = cudaStreamSynchronize(own);
  if (status != cudaSuccess) cudaFree(memory);
  check(function, status, "cannot zero its counters");
  return static_cast<uint32_t*>(memory);
}

struct Capture {
  unsigned long long id = 0;  // 0: the stream does not capture
  cudaGraph_t graph = nullptr;
};

Capture capture_of(const char* function, cudaStream_t stream) {
  Capture capture;
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  // Legal during a capture. CUDA 13 has one argument more.
#if CUDART_VERSION >= 13000
  const cudaError_t error = cudaStreamGetCaptureInfo(stream, &status, &capture.id, &capture.graph,
                                                     nullptr, nullptr, nullptr);
#else
  const cudaError_t error =
      cudaStreamGetCaptureInfo_v2(stream, &status, &capture.id, &capture.graph, nullptr, nullptr);
#endif
  check(function, error, "cannot ask whether the stream captures a graph");
  return status == cudaStreamCaptureStatusActive ? capture : Capture{};
}

struct HeldSlot {
  CounterSlots* slots;
  CounterSlots::Key key;
};

// Called by the driver once a graph, its clones and its executables are destroyed and have run to
// their end. No CUDA call is allowed here, and none is needed: every launch has left zeros.
void CUDART_CB give_back(void* data) {
  const std::unique_ptr<HeldSlot> held(static_cast<HeldSlot*>(data));
  held->slots->remove(held->key);
}

void hold_by_graph(const char* function, cudaGraph_t graph, CounterSlots& slots,
                   const CounterSlots::Key& key) {
  auto held = std::make_unique<HeldSlot>(HeldSlot{&slots, key});
  cudaUserObject_t object = nullptr;
  cudaError_t status =
      cudaUserObjectCreate(&object, held.get(), give_back, 1, cudaUserObjectNoDestructorSync);
  if (status == cudaSuccess) {
    held.release();  // give_back's from now on
    status = cudaGraphRetainUserObject(graph, object, 1, cudaGraphUserObjectMove);
    if (status != cudaSuccess) cudaUserObjectRelease(object, 1);
  } else {
    slots.remove(key);
  }
  check(function, status, "cannot tie its counters to the graph");
}

}  // namespace

uint32_t* split_counters(const char* function, int device, void* stream, int num_sms, int count) {
  const int per_slot = max_counters(num_sms);
  STD_TORCH_CHECK(count <= per_slot, function, ": the choice needs ", count,
                  " counters, expected at most ", per_slot);
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  const Capture capture = capture_of(function, cuda_stream);
  // A handle may be given to another stream while the first one's work still runs; an id is not.
  unsigned long long id = 0;
  check(function, cudaStreamGetId(cuda_stream, &id), "cannot tell the stream's id");

  CounterSlots& slots = slots_of(device);
  const CounterSlots::Key key = {capture.id, id};
  const CounterSlots::Slot slot = slots.find_or_add(key, per_slot, [&] {
    return zeroed_memory(function, sizeof(uint32_t) * per_slot * CounterSlots::kSlotsPerChunk);
  });
  if (slot.is_new && capture.graph != nullptr) hold_by_graph(function, capture.graph, slots, key);
  return slot.counters;
}

}  // namespace padmarlin
