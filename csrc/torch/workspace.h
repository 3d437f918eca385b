// SPDX-License-Identifier: Apache-2.0
// The counters by which blocks that share an output tile find out who comes last (cuda/fixup.cuh).
// They must be zero before a launch, leave zeros behind, and be nobody else's meanwhile.
#pragma once

#include <cstdint>

namespace padmarlin {

// Zeros for the next launch on `stream` (a cudaStream_t) of the device, which must be current: at
// least `count`, which is at most max_counters(num_sms). The same slot serves the launches of a
// stream one after another; a stream that captures a graph has another slot for each capture, held
// until the graph and all that was instantiated from it are gone. So graphs captured on one stream
// may replay at once on several. (Two executables instantiated from one graph may not.)
//
// No synchronisation, except where slots run out: then 64 more are allocated and zeroed on a stream
// of their own, which is legal also while this or another thread captures.
uint32_t* split_counters(const char* function, int device, void* stream, int num_sms, int count);

}  // namespace padmarlin
