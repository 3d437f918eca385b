// SPDX-License-Identifier: Apache-2.0
// Launches the kernels of tests/probes/bulk_pipeline.cuh: right, and with every mistake.
#include <pybind11/stl.h>

#include <utility>

#include "../probes/bulk_pipeline.cuh"
#include "bindings.h"

namespace padmarlin::emulator {
namespace {

using probes::BulkFault;

template <int... kFaults>
void run_bulk_pipeline(std::integer_sequence<int, kFaults...>, BulkFault fault, const uint8_t* in,
                       int chunks, uint4* out) {
  ((fault == BulkFault{kFaults} ? probes::bulk_pipeline_probe<BulkFault{kFaults}>(in, chunks, out)
                                : void()),
   ...);
}
constexpr int kNumFaults = static_cast<int>(BulkFault::kGlobalOutOfRange) + 1;

Array<uint8_t> bulk_pipeline(const Array<uint8_t>& in, BulkFault fault,
                             const LaunchOptions& options) {
  const int chunks = static_cast<int>(in.size() / probes::kBulkBytes);
  expect_size("bulk_pipeline", "values", in, chunks * probes::kBulkBytes);
  Array<uint8_t> out(in.size());
  LaunchOptions own = options;
  own.regions.push_back({reinterpret_cast<uintptr_t>(in.data()), static_cast<size_t>(in.size())});
  auto* const to = reinterpret_cast<uint4*>(out.mutable_data());
  launch({"bulk_pipeline_probe", 1, 1, probes::kBulkThreads, probes::kBulkSharedBytes}, own, [&] {
    run_bulk_pipeline(std::make_integer_sequence<int, kNumFaults>(), fault, in.data(), chunks, to);
  });
  return out;
}

}  // namespace

void bind_bulk_probes(py::module_& module) {
  py::enum_<BulkFault>(module, "BulkFault")
      .value("NONE", BulkFault::kNone)
      .value("NO_FULL_WAIT", BulkFault::kNoFullWait)
      .value("NO_EMPTY_WAIT", BulkFault::kNoEmptyWait)
      .value("FREED_EARLY", BulkFault::kFreedEarly)
      .value("TOO_FEW_BYTES", BulkFault::kTooFewBytes)
      .value("TOO_MANY_BYTES", BulkFault::kTooManyBytes)
      .value("NO_FENCE", BulkFault::kNoFence)
      .value("NO_INIT", BulkFault::kNoInit)
      .value("ARRIVES_TWICE", BulkFault::kArrivesTwice)
      .value("EXIT_WITH_COPIES", BulkFault::kExitWithCopies)
      .value("MISALIGNED_SHARED", BulkFault::kMisalignedShared)
      .value("MISALIGNED_GLOBAL", BulkFault::kMisalignedGlobal)
      .value("GLOBAL_OUT_OF_RANGE", BulkFault::kGlobalOutOfRange);
  module.def("bulk_pipeline", &bulk_pipeline, py::arg("values"), py::kw_only(),
             py::arg("fault") = BulkFault::kNone, py::arg("options") = LaunchOptions{});
}

}  // namespace padmarlin::emulator
