// SPDX-License-Identifier: Apache-2.0
// One packed tile, three consumers: the proof that the format of core/layout.h serves every kernel
// family. Each kernel multiplies the codes of a tile (minus the symmetric zero point) by small
// integer activations.
#pragma once

#include <ptx/barrier.cuh>
#include <ptx/half2.cuh>
#include <ptx/mma.cuh>
#include <ptx/shared_memory.cuh>
#include <ptx/special_registers.cuh>
#include <ptx/wgmma.cuh>

#include "core/layout.h"
#include "cuda/stage.cuh"

namespace padmarlin::probes {

// The registers of a 16 (k) x 16 (n) block from the words that hold it, one per plane:
// fragment[2 * k_half + column_half] has the weights of column n + 8 * column_half, rows k, k + 1.
// Not the kernels' dequantization: field by field, as the definition says.
template <Dtype kDtype, int kBits>
PADMARLIN_DEVICE void unpack_fragment(const uint32_t (&words)[planes(kBits)],
                                      uint32_t (&fragment)[4]) {
  constexpr uint32_t kMask = (1u << kBits) - 1;
  constexpr float kZero = 1 << (kBits - 1);
  for (int k_half = 0; k_half < 2; ++k_half) {
    const uint32_t word = words[k_half % planes(kBits)];
    for (int column_half = 0; column_half < 2; ++column_half) {
      const int bit = field_bit(field_base(kDtype, kBits), kBits, column_half, k_half);
      const uint32_t low = rotate16(word & 0xffff, 16 - bit) & kMask;
      const uint32_t high = rotate16(word >> 16, 16 - bit) & kMask;
      fragment[2 * k_half + column_half] =
          ptx::pack2<kDtype>(static_cast<float>(low) - kZero, static_cast<float>(high) - kZero);
    }
  }
}

// Shared memory: `tiles` weight tiles, then activations (rows, 64), swizzled as in cuda/stage.cuh.
template <int kBits>
PADMARLIN_DEVICE uint8_t* load_shared(const uint4* weights, int tiles, const uint4* activations,
                                      int rows, int threads) {
  uint8_t* const shared = ptx::dynamic_shared();
  uint8_t* const shared_activations = shared + tiles * tile_bytes(kBits);
  for (int i = ptx::tid_x(); i < tiles * tile_bytes(kBits) / 16; i += threads) {
    ptx::st_shared_v4(shared + 16 * i, weights[i]);
  }
  for (int i = ptx::tid_x(); i < rows * 8; i += threads) {
    ptx::st_shared_v4(shared_activations + activation_offset(i / 8, i % 8), activations[i]);
  }
  ptx::fence_proxy_async();  // wgmma reads shared memory by another way than stores write it
  ptx::bar_sync();
  return shared_activations;
}

// A lane's four words of one k-slice, or of each of its planes: word j is columns 16j + ...
template <int kBits>
PADMARLIN_DEVICE void load_words(const uint8_t* tile, int slice, int lane,
                                 uint32_t (&words)[4][planes(kBits)]) {
  for (int plane = 0; plane < planes(kBits); ++plane) {
    const int word = slice * atom_words(kBits) + plane * kPlaneWords + lane * kWordsPerLane;
    const uint4 packed = ptx::ld_shared_v4(tile + 4 * word);
    words[0][plane] = packed.x;
    words[1][plane] = packed.y;
    words[2][plane] = packed.z;
    words[3][plane] = packed.w;
  }
}

// (a) mma.sync, weights as operand B: out (16, 64) = activations (16, 64) * tile. One warp.
template <Dtype kDtype, int kBits>
__global__ void operand_b_probe(const uint4* tile, const uint4* activations, float* out) {
  const int lane = ptx::tid_x(), g = lane / 4, t = lane % 4;
  const uint8_t* const shared_a = load_shared<kBits>(tile, 1, activations, 16, kWarp);
  float d[8][4] = {};  // by block of 8 columns
  for (int slice = 0; slice < kSlicesPerTile; ++slice) {
    uint32_t a[4], words[4][planes(kBits)];
    ptx::ldmatrix_x4(a, shared_a + activation_offset(lane % 16, 2 * slice + lane / 16));
    load_words<kBits>(ptx::dynamic_shared(), slice, lane, words);
    for (int j = 0; j < 4; ++j) {
      uint32_t w[4];
      unpack_fragment<kDtype, kBits>(words[j], w);
      for (int column_half = 0; column_half < 2; ++column_half) {
        const uint32_t b[2] = {w[column_half], w[2 + column_half]};
        ptx::mma_m16n8k16<kDtype>(d[2 * j + column_half], a, b);
      }
    }
  }
  for (int block = 0; block < 8; ++block) {
    for (int i = 0; i < 4; ++i) {
      out[(g + i / 2 * 8) * kTile + 8 * block + 2 * t + i % 2] = d[block][i];
    }
  }
}

// (b) mma.sync transposed, weights as the 16-row operand A:
// out (64, 8) = transposed(tile) * transposed(activations (8, 64)). One warp.
template <Dtype kDtype, int kBits>
__global__ void operand_a_probe(const uint4* tile, const uint4* activations, float* out) {
  const int lane = ptx::tid_x(), g = lane / 4, t = lane % 4;
  const uint8_t* const shared_b = load_shared<kBits>(tile, 1, activations, 8, kWarp);
  float d[4][4] = {};  // by block of 16 weight columns
  for (int slice = 0; slice < kSlicesPerTile; ++slice) {
    // Four 8 x 8 matrices side by side: operand B of this k-slice and of the next, whose half of
    // the load goes unused.
    uint32_t activation[4], words[4][planes(kBits)];
    ptx::ldmatrix_x4(activation,
                     shared_b + activation_offset(lane % 8, (2 * slice + lane / 8) % 8));
    load_words<kBits>(ptx::dynamic_shared(), slice, lane, words);
    const uint32_t b[2] = {activation[0], activation[1]};
    for (int j = 0; j < 4; ++j) {
      uint32_t w[4];
      unpack_fragment<kDtype, kBits>(words[j], w);
      ptx::mma_m16n8k16<kDtype>(d[j], w, b);
    }
  }
  for (int j = 0; j < 4; ++j) {
    for (int i = 0; i < 4; ++i) out[(16 * j + g + i / 2 * 8) * 8 + 2 * t + i % 2] = d[j][i];
  }
}

// d += a * b, and waits.
template <Dtype kDtype>
PADMARLIN_DEVICE void multiply_register_a(float (&d)[4], const uint32_t (&a)[4], uint64_t b) {
  ptx::wgmma_fence();
  ptx::wgmma_m64k16<kDtype, 8>(d, a, b, true);
  ptx::wgmma_commit_group();
  ptx::wgmma_wait_group<0>();
}

// (c) wgmma m64k16, weights as register operand A: out (128, 8) from two tiles side by side. One
// warpgroup: warps 0, 1 read tile 0, warps 2, 3 tile 1, each one half of every lane's 16 bytes.
template <Dtype kDtype, int kBits>
__global__ void register_a_probe(const uint4* tiles, const uint4* activations, float* out) {
  const int warp = ptx::tid_x() / kWarp, lane = ptx::tid_x() % kWarp, g = lane / 4, t = lane % 4;
  const uint8_t* const shared_b = load_shared<kBits>(tiles, 2, activations, 8, 4 * kWarp);
  // An 8-byte load serves 16 lanes at a time, whose 16-byte cells span all banks twice. Lanes 0..7
  // and 8..15 take opposite halves of their cells, so together they touch every bank once.
  const int half = (warp ^ lane >> 3) & 1;
  const uint8_t* const tile = ptx::dynamic_shared() + warp / 2 * tile_bytes(kBits);
  float d[2][4] = {};
  for (int slice = 0; slice < kSlicesPerTile; ++slice) {
    uint32_t words[2][planes(kBits)];
    for (int plane = 0; plane < planes(kBits); ++plane) {
      const int word = slice * atom_words(kBits) + plane * kPlaneWords + lane * kWordsPerLane;
      const uint2 packed = ptx::ld_shared_v2(tile + 4 * word + 8 * half);
      words[0][plane] = packed.x;
      words[1][plane] = packed.y;
    }
    for (int i = 0; i < 2; ++i) {
      uint32_t w[4];
      unpack_fragment<kDtype, kBits>(words[i], w);
      multiply_register_a<kDtype>(d[i], w, ptx::swizzled_descriptor(shared_b, 2 * slice));
    }
  }
  // Row r of this warp's sixteen is column 16 * (2 * half + i) + r of its tile; `half` belongs to
  // the lane that holds both the row's weights and its sums.
  for (int i = 0; i < 2; ++i) {
    for (int j = 0; j < 4; ++j) {
      const int n = warp / 2 * kTile + 16 * (2 * half + i) + g + j / 2 * 8;
      out[n * 8 + 2 * t + j % 2] = d[i][j];
    }
  }
}

}  // namespace padmarlin::probes
