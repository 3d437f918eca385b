// SPDX-License-Identifier: Apache-2.0
// Tile loads of the tensor copy engine (PTX ISA, "cp.async.bulk.tensor"). sm_90.
#pragma once

#include <cuda.h>

#include <ptx/qualifiers.cuh>
#include <ptx/shared_memory.cuh>

// How a kernel takes a TensorMap: by value, in memory that the copy engine can read.
#define PADMARLIN_GRID_CONSTANT const __grid_constant__

namespace padmarlin::ptx {

using TensorMap = CUtensorMap;

// prefetch.tensormap: the copy engine's first use of the map will not wait for it. By one thread.
PADMARLIN_DEVICE void prefetch_tensor_map(const TensorMap& map) {
#if PADMARLIN_HAS_SM90
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
#else
  __trap();
#endif
}

// The map's box with its first element at column x, row y, either of which may be negative or past
// the end: what lies outside the tensor arrives as zeros, and counts as bytes. One thread calls it;
// `shared` is aligned as the map's swizzle asks (1024 bytes for 128-byte swizzle).
PADMARLIN_DEVICE void tma_load_2d(void* shared, const TensorMap& map, int x, int y,
                                  uint64_t* barrier) {
#if PADMARLIN_HAS_SM90
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3}], [%4];" ::"r"(shared_address(shared)),
      "l"(&map), "r"(x), "r"(y), "r"(shared_address(barrier))
      : "memory");
#else
  __trap();
#endif
}

}  // namespace padmarlin::ptx
