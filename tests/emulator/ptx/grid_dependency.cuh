// SPDX-License-Identifier: Apache-2.0
// Host twin of programmatic dependent launch: one kernel runs at a time and nothing is cached, but
// a kernel that is launched to overlap must not touch memory before it has waited.
#pragma once

#include <ptx/qualifiers.cuh>

namespace padmarlin::ptx {

PADMARLIN_DEVICE void griddepcontrol_wait() { emulator::griddepcontrol_wait(); }
PADMARLIN_DEVICE void griddepcontrol_launch_dependents() {}

}  // namespace padmarlin::ptx
