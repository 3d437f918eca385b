// SPDX-License-Identifier: Apache-2.0
// The emulator's interface: `launch` for those who start kernels, and below it what the host twins
// of csrc/cuda/ptx (tests/emulator/ptx) call. README.md says how it works.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/dtype.h"

namespace padmarlin::emulator {

// When the bytes of a copy arrive. The program may rely on none of these: all are legal until the
// wait_group or the mbarrier's phase that covers the copy.
enum class Delivery {
  kEager,   // at once
  kLate,    // in the wait_group that guarantees them, or (copy engine) when nobody can go on
            // without them; until then the destination holds NaNs
  kRandom,  // each copy one or the other
};

struct Region {
  uintptr_t begin;
  size_t bytes;
};

struct LaunchOptions {
  uint64_t seed = 0;  // 0: threads run in order; otherwise a random schedule, the same every time
  Delivery delivery = Delivery::kEager;
  int resident_blocks = 1;         // blocks that run interleaved
  std::vector<Region> regions;     // memory that cp.async may read; empty: anything
  bool overlaps_previous = false;  // the kernel in front may still be running
};

struct LaunchShape {
  const char* kernel;  // for messages
  int grid_x, grid_y;
  int threads;  // per block, whole warps
  size_t shared_bytes;
};

// A warp's access to shared memory takes at least one wavefront per phase (128 bytes); every word
// more that falls into an already busy bank costs an extra one.
struct SharedAccesses {
  int64_t instructions = 0;  // warp-wide
  int64_t extra_wavefronts = 0;
};
using Statistics = std::map<std::string, SharedAccesses>;  // by instruction

// What a kernel did wrong, with kernel, block and thread.
class LaunchError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Runs `kernel` once per thread of the grid. Throws LaunchError, always on the caller's stack.
Statistics launch(const LaunchShape& shape, const LaunchOptions& options,
                  const std::function<void()>& kernel);

// ---- special registers
int tid_x();
int ctaid_x();
int ctaid_y();

// ---- shared memory. A misaligned or out-of-range address ends the launch.
uint8_t* dynamic_shared();
uint32_t shared_address(const void* pointer);
// Announces this lane's part of a shared load or store of `bytes` (4, 8 or 16). Lanes need not
// come together: a warp's lanes are matched by call site for the bank-conflict count.
[[gnu::noinline]] void access_shared(const char* instruction, const void* pointer, int bytes);

// ---- global memory. What the atomic orders besides is told to ThreadSanitizer.
// An atomic or asynchronous copy before the wait ends a launch that overlaps_previous.
void griddepcontrol_wait();
void prefetch_l2(const void* global);
uint32_t atom_inc(uint32_t* address, uint32_t bound, bool acquires, bool releases);

// ---- warp-wide instructions: every lane must come
void ldmatrix_x4(uint32_t (&fragment)[4], const void* row);
void stmatrix_x4_trans(void* row, const uint32_t (&fragment)[4]);
void mma_m16n8k16(Dtype dtype, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);

void syncwarp();
// True in one lane of the warp.
bool elect_sync();
int shfl(int value, int source);

// ---- the block's barrier
void bar_sync();
void named_bar_sync(int id, int threads);

// ---- warpgroups. `descriptor` is the matrix descriptor of PTX, 128-byte swizzle only.
void wgmma(Dtype dtype, int columns, float* d, const uint32_t* a, uint64_t descriptor,
           bool accumulate);
void wgmma_fence();
void wgmma_commit_group();
void wgmma_wait_group(int pending);
void setmaxnreg(int registers, bool increase);

// ---- asynchronous copies
void cp_async(void* shared, const void* global, int bytes, int source_bytes);
void cp_async_commit_group();
void cp_async_wait_group(int pending);

// ---- the copy engine and its barriers
void mbarrier_init(uint64_t* barrier, int arrivals);
void fence_mbarrier_init();
void mbarrier_arrive(uint64_t* barrier, int bytes);  // announces `bytes` besides
void mbarrier_expect_tx(uint64_t* barrier, int bytes);
void mbarrier_wait_parity(uint64_t* barrier, int parity);
void bulk_copy(void* shared, const void* global, int bytes, uint64_t* barrier);

// A row-major matrix of 16-bit elements and the box that one load brings: `box_rows` rows of 128
// bytes, stored with the 128-byte swizzle, zeros outside the matrix.
struct TensorMap {
  const uint16_t* base;
  int64_t columns, rows, pitch_bytes;
  int box_rows;
};
void tma_load_2d(void* shared, const TensorMap& map, int x, int y, uint64_t* barrier);

}  // namespace padmarlin::emulator
