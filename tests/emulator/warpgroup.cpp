// SPDX-License-Identifier: Apache-2.0
// wgmma: done at its commit or, late, in the wait_group that guarantees it, which reads the
// registers and the shared memory as they are then. Each warp computes its own sixteen rows.
// setmaxnreg.
#include <cstring>

#include "float16.h"
#include "machine.h"

namespace padmarlin::emulator {
namespace {

constexpr int kRows = 16, kDepth = 16;  // of a warp's part of a wgmma
constexpr int kMaxColumns = 256;

struct WgmmaOperands {
  Dtype dtype;
  int columns;
  float* d;
  const uint32_t* a;
  uint64_t b;
  bool accumulate;
};

// PTX ISA, "Matrix Descriptor Format". Where row `row` of b keeps its k, k + 1, .. (eight of them).
uint32_t chunk_address(uint64_t descriptor, int row, int chunk) {
  const uint32_t start = static_cast<uint32_t>(descriptor & 0x3fff) << 4;
  const uint32_t stride = static_cast<uint32_t>(descriptor >> 32 & 0x3fff) << 4;
  return swizzle_128(start + row / 8 * stride + row % 8 * 128 + chunk * 16);
}

void check_descriptor(uint64_t descriptor, int columns) {
  if (descriptor >> 62 != 1) fail("wgmma: the descriptor's swizzle is not of 128 bytes");
  if (descriptor >> 49 & 7) fail("wgmma: the descriptor's base offset is not 0");
  uint8_t* const shared = dynamic_shared();
  for (int row = 0; row < columns; ++row) {
    for (int chunk = 0; chunk < 2; ++chunk) {
      check_shared("wgmma", shared + chunk_address(descriptor, row, chunk), 16);
    }
  }
}

// This lane's share of the reads of b, for ThreadSanitizer.
void declare_reads(uint64_t descriptor, int columns) {
#if defined(PADMARLIN_TSAN)
  uint8_t* const shared = dynamic_shared();
  for (int row = running_thread().lane; row < columns; row += kWarp) {
    for (int chunk = 0; chunk < 2; ++chunk) {
      declare_read(shared + chunk_address(descriptor, row, chunk), 16);
    }
  }
#else
  static_cast<void>(descriptor);
  static_cast<void>(columns);
#endif
}

template <Dtype kDtype>
void unpack(uint32_t word, float* pair) {
  pair[0] = to_float<kDtype>(static_cast<uint16_t>(word));
  pair[1] = to_float<kDtype>(static_cast<uint16_t>(word >> 16));
}

// The fragment maps are spelled out in csrc/cuda/ptx/wgmma.cuh.
template <Dtype kDtype>
void multiply(const Wgmma& wgmma, const uint8_t* shared) {
  static thread_local float a[kRows][kDepth], b[kDepth][kMaxColumns], d[kRows][kMaxColumns];
  for (int lane = 0; lane < kWarp; ++lane) {
    const int g = lane / 4, k = lane % 4 * 2;
    for (int i = 0; i < 4; ++i) {
      unpack<kDtype>(wgmma.a[lane][i], &a[g + i % 2 * 8][k + i / 2 * 8]);
    }
  }
  for (int column = 0; column < wgmma.columns; ++column) {
    for (int k = 0; k < kDepth; ++k) {
      uint16_t element;
      std::memcpy(&element, shared + chunk_address(wgmma.b, column, k / 8) + k % 8 * 2, 2);
      b[k][column] = to_float<kDtype>(element);
    }
  }
  for (int row = 0; row < kRows; ++row) {
    std::memset(d[row], 0, sizeof d[row]);
    for (int k = 0; k < kDepth; ++k) {
      const float weight = a[row][k];
      for (int column = 0; column < wgmma.columns; ++column)
        d[row][column] += weight * b[k][column];
    }
  }
  for (int lane = 0; lane < kWarp; ++lane) {
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < wgmma.columns / 2; ++i) {
      const float sum = d[g + i / 2 % 2 * 8][i / 4 * 8 + 2 * t + i % 2];
      float& own = wgmma.d[lane][i];
      own = wgmma.accumulate ? own + sum : sum;
    }
  }
}

void finish(Wgmma& wgmma, const Warp& warp) {
  if (wgmma.done) return;
  wgmma.done = true;
  const uint8_t* const shared = warp.block->shared.get();
  wgmma.dtype == Dtype::kHalf ? multiply<Dtype::kHalf>(wgmma, shared)
                              : multiply<Dtype::kBfloat16>(wgmma, shared);
}

void issue(Warp& warp) {
  const auto& first = *static_cast<WgmmaOperands*>(warp.lanes[0]->operands);
  if (!warp.wgmma_fenced) {
    fail("wgmma: no wgmma_fence since its registers were free to be written");
  }
  Wgmma made{
      first.dtype, first.columns, first.b, first.accumulate, {}, {}, warp.committed_wgmma_groups};
  for (int lane = 0; lane < kWarp; ++lane) {
    const auto& own = *static_cast<WgmmaOperands*>(warp.lanes[lane]->operands);
    if (own.b != first.b || own.accumulate != first.accumulate || own.columns != first.columns) {
      fail("wgmma: lanes of a warp differ in the descriptor or in accumulate");
    }
    made.d[lane] = own.d;
    made.a[lane] = own.a;
  }
  warp.wgmmas.push_back(made);
}

}  // namespace

void wgmma(Dtype dtype, int columns, float* d, const uint32_t* a, uint64_t descriptor,
           bool accumulate) {
  if (running_thread().lane == 0) check_descriptor(descriptor, columns);
  declare_reads(descriptor, columns);
  WgmmaOperands operands{dtype, columns, d, a, descriptor, accumulate};
  rendezvous("wgmma", &operands, issue);
}

void wgmma_fence() {
  rendezvous("wgmma_fence", nullptr, [](Warp& warp) { warp.wgmma_fenced = true; });
}

void wgmma_commit_group() {
  rendezvous("wgmma_commit_group", nullptr, [](Warp& warp) {
    ++warp.committed_wgmma_groups;
    warp.wgmma_fenced = false;
    if (arrives_late()) return;
    for (Wgmma& wgmma : warp.wgmmas) finish(wgmma, warp);  // they run in order
  });
}

void wgmma_wait_group(int pending) {
  for (const Wgmma& wgmma : running_thread().warp->wgmmas) {
    if (wgmma.group + pending >= running_thread().warp->committed_wgmma_groups) break;
    declare_reads(wgmma.b, wgmma.columns);
  }
  rendezvous("wgmma_wait_group", &pending, [](Warp& warp) {
    const int allowed = *static_cast<int*>(warp.lanes[0]->operands);
    auto& wgmmas = warp.wgmmas;
    while (!wgmmas.empty() && wgmmas.front().group + allowed < warp.committed_wgmma_groups) {
      finish(wgmmas.front(), warp);
      wgmmas.pop_front();
    }
  });
}

void check_wgmmas(const Warp& warp) {
  if (warp.wgmmas.empty()) return;
  fail("exits with " + std::to_string(warp.wgmmas.size()) +
       " wgmma that no wgmma_wait_group has covered");
}

namespace {

struct RegisterOperands {
  int registers;
  bool increase;
};

void trade_registers(Warp& warp) {
  const auto [wanted, increase] = *static_cast<RegisterOperands*>(warp.lanes[0]->operands);
  Block& block = *warp.block;
  if (increase ? wanted < warp.registers : wanted > warp.registers) {
    fail("setmaxnreg: from " + std::to_string(warp.registers) + " to " + std::to_string(wanted) +
         " registers is no " + (increase ? "increase" : "decrease"));
  }
  if (increase) return;
  block.free_registers += (warp.registers - wanted) * kWarp;
  warp.registers = wanted;
  wake(block, &block.free_registers);
}

}  // namespace

void setmaxnreg(int registers, bool increase) {
  RegisterOperands operands{registers, increase};
  rendezvous("setmaxnreg", &operands, trade_registers);
  if (!increase) return;
  const Unobserved unobserved;
  Warp& warp = *running_thread().warp;
  Block& block = *warp.block;
  // The first lane that finds enough takes them for its warp.
  while (warp.registers != registers) {
    const int missing = (registers - warp.registers) * kWarp;
    if (block.free_registers >= missing) {
      block.free_registers -= missing;
      warp.registers = registers;
    } else {
      wait_at(&block.free_registers, "setmaxnreg");
    }
  }
  wake(block, &block.free_registers);
}

}  // namespace padmarlin::emulator
