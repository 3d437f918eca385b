// SPDX-License-Identifier: Apache-2.0
// GPUs by name, for predictions where there is none: data-sheet numbers, and the shared memory of
// their compute capability (CUDA C++ Programming Guide, "Technical Specifications per Compute
// Capability"). Pure C++: no CUDA, no torch.
#pragma once

#include <string_view>

#include "core/gemm_cost.h"

namespace padmarlin {

struct NamedDevice {
  std::string_view name;
  Device device;
};

constexpr int kKilobyte = 1024;

// Shared memory that a block may have, and that an SM has, by compute capability.
constexpr int block_shared_bytes(int architecture) {
  switch (architecture) {
    case 80:
    case 87:
      return 163 * kKilobyte;
    case 90:
    case 100:
    case 103:
      return 227 * kKilobyte;
    default:  // 86, 89, 120 and what is not known yet
      return 99 * kKilobyte;
  }
}
constexpr int sm_shared_bytes(int architecture) {
  return block_shared_bytes(architecture) + kReservedSharedBytes;
}

constexpr Device device_of(int num_sms, int architecture, int dram_gbps) {
  return {num_sms, architecture, block_shared_bytes(architecture), sm_shared_bytes(architecture),
          dram_gbps};
}

constexpr NamedDevice kNamedDevices[] = {
    {"h200", device_of(132, 90, 4800)}, {"h100", device_of(132, 90, 3350)},
    {"h20", device_of(78, 90, 4000)},   {"a100", device_of(108, 80, 2039)},
    {"l40s", device_of(142, 89, 864)},  {"4090", device_of(128, 89, 1008)},
    {"3060", device_of(28, 86, 360)},   {"b200", device_of(148, 100, 8000)},
    {"5090", device_of(170, 120, 1792)}};

// Of the first GPU above with that architecture, else of the slowest.
constexpr int usual_gbps(int architecture) {
  for (const NamedDevice& known : kNamedDevices) {
    if (known.device.architecture == architecture) return known.device.dram_gbps;
  }
  return 360;
}

}  // namespace padmarlin
