// SPDX-License-Identifier: Apache-2.0
// Launches the kernels of tests/probes/pipeline.cuh: right, and with every mistake.
#include <pybind11/stl.h>

#include <utility>

#include "../probes/pipeline.cuh"
#include "bank_conflicts.h"
#include "bindings.h"

namespace padmarlin::emulator {
namespace {

using probes::Fault;

// The kernel of each fault, in the order of the enumeration.
template <int... kFaults>
void run_reverse(std::integer_sequence<int, kFaults...>, Fault fault, const uint8_t* in,
                 uint8_t* out, int grid_x) {
  ((fault == Fault{kFaults} ? probes::reverse_probe<Fault{kFaults}>(in, out, grid_x) : void()),
   ...);
}
constexpr int kNumFaults = static_cast<int>(Fault::kGlobalOutOfRange) + 1;

Array<uint8_t> reverse(const Array<uint8_t>& in, int grid_x, int grid_y, Fault fault,
                       const LaunchOptions& options, size_t shared_bytes) {
  expect_size("reverse", "values", in, 16 * probes::kReverseChunks * grid_x * grid_y);
  Array<uint8_t> out(in.size());
  LaunchOptions own = options;
  own.regions.push_back({reinterpret_cast<uintptr_t>(in.data()), static_cast<size_t>(in.size())});
  uint8_t* const to = out.mutable_data();
  launch({"reverse_probe", grid_x, grid_y, probes::kReverseThreads, shared_bytes}, own, [&] {
    run_reverse(std::make_integer_sequence<int, kNumFaults>(), fault, in.data(), to, grid_x);
  });
  return out;
}

Array<uint8_t> partial_copy(const Array<uint8_t>& in, int bytes, int present,
                            const LaunchOptions& options) {
  expect_size("partial_copy", "values", in, kWarp * bytes);
  Array<uint8_t> out(in.size());
  uint8_t* const to = out.mutable_data();
  launch({"partial_copy_probe", 1, 1, kWarp, static_cast<size_t>(kWarp * bytes)}, options, [&] {
    switch (bytes) {
      case 4:
        return probes::partial_copy_probe<4>(in.data(), present, to);
      case 8:
        return probes::partial_copy_probe<8>(in.data(), present, to);
      default:
        return probes::partial_copy_probe<16>(in.data(), present, to);
    }
  });
  return out;
}

int count_extra_wavefronts(const Array<uint32_t>& addresses, uint32_t active, int bytes) {
  expect_size("extra_wavefronts", "addresses", addresses, kWarp);
  LaneAddresses lanes;
  std::copy_n(addresses.data(), kWarp, lanes.begin());
  return extra_wavefronts(lanes, active, bytes);
}

}  // namespace

void bind_pipeline_probes(py::module_& module) {
  py::enum_<Fault>(module, "Fault")
      .value("NONE", Fault::kNone)
      .value("NO_WAIT", Fault::kNoWait)
      .value("WAIT_TOO_WEAK", Fault::kWaitTooWeak)
      .value("NO_BARRIER", Fault::kNoBarrier)
      .value("EXIT_BEFORE_BARRIER", Fault::kExitBeforeBarrier)
      .value("EXIT_BEFORE_LDMATRIX", Fault::kExitBeforeLdmatrix)
      .value("DIVERGENCE", Fault::kDivergence)
      .value("DEADLOCK", Fault::kDeadlock)
      .value("EXIT_WITH_COPIES", Fault::kExitWithCopies)
      .value("SPIN", Fault::kSpin)
      .value("LIVELOCK", Fault::kLivelock)
      .value("MISALIGNED_SHARED", Fault::kMisalignedShared)
      .value("SHARED_OUT_OF_RANGE", Fault::kSharedOutOfRange)
      .value("MISALIGNED_GLOBAL", Fault::kMisalignedGlobal)
      .value("GLOBAL_OUT_OF_RANGE", Fault::kGlobalOutOfRange);
  using py::arg;
  module.def("reverse", &reverse, arg("values"), arg("grid_x") = 1, arg("grid_y") = 1,
             py::kw_only(), arg("fault") = Fault::kNone, arg("options") = LaunchOptions{},
             arg("shared_bytes") = probes::kReverseSharedBytes);
  module.def("partial_copy", &partial_copy, arg("values"), arg("bytes"), arg("present"),
             arg("options") = LaunchOptions{});
  module.def("extra_wavefronts", &count_extra_wavefronts, arg("addresses"), arg("active"),
             arg("bytes"));
}

}  // namespace padmarlin::emulator
