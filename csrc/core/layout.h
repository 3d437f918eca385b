// SPDX-License-Identifier: Apache-2.0
// THE packed format, version 1 (docs/layout.md draws it; padmarlin/layout.py mirrors it).
// Pure constexpr C++: no CUDA, no torch. tests/test_layout.py pins it with a golden map.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace padmarlin {

constexpr int kFormatVersion = 1;

constexpr int kTile = 64;   // a tile is 64 (k) x 64 (n): one contiguous block of memory
constexpr int kSlice = 16;  // a k-slice: 16 rows that share one scale row; the k of one mma
constexpr int kSlicesPerTile = kTile / kSlice;
constexpr int kWarp = 32;

// An atom is one k-slice of a tile: 16 (k) x 64 (n) codes. A warp reads it with one 16-byte load
// per lane (two at 8 bits: an atom is then two planes of 512 bytes).
constexpr int kWordsPerLane = 4;  // 16 bytes
constexpr int kPlaneWords = kWarp * kWordsPerLane;
constexpr int planes(int bits) { return bits / 4; }
constexpr int atom_words(int bits) { return kPlaneWords * planes(bits); }
constexpr int tile_words(int bits) { return kSlicesPerTile * atom_words(bits); }
constexpr int tile_bytes(int bits) { return 4 * tile_words(bits); }

constexpr int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

constexpr int div_up(int64_t value, int64_t divisor) {
  return static_cast<int>((value + divisor - 1) / divisor);
}

// How the kernel turns codes into weights; chosen at repack from the largest scale.
// In all of them a code is masked out as x = code * 2^-e, e = unit_exponent - (bit of the field):
//   kTwoField  w = x * (s * 2^e): fields stay where they lie, so e differs between the two columns
//              n and n + 8 that share a word. Cheapest; the stored scale s * 2^e must be finite.
//   kOneField  the lower field is shifted to the upper one's place: 16 times larger scales.
//   kWide      scales stored as they are; x is scaled back to an integer first. Any scale.
// Symmetric weights (no zeros tensor) subtract by FMA: x * (s * 2^e) + (-z * s), which is exact.
// Asymmetric ones subtract first: (x - z * 2^-e) * (s * 2^e); the difference is exact.
// kWide is always asymmetric: a symmetric weight gets a constant zeros tensor.
enum class Dequant : int { kTwoField = 0, kOneField = 1, kWide = 2 };

// Lowest bit of the code fields inside a 16-bit half. At 4 bits a half holds four codes:
//
//   (column_half, k_half):   (0,1)      (1,1)      (0,0)      (1,0)
//   bits, base = 0 (bf16):   15..12     11..8       7..4       3..0
//
// and the half is rotated left by `base`. fp16 has room for base = 3: the largest for which
// both low fields stay below bit 11, which allows the largest scales. A byte swap of the half
// (one PRMT) brings the k_half = 1 fields to the place of the k_half = 0 fields.
// At 8 bits a half holds the columns n (low byte) and n + 8 (high byte); planes hold the k halves.
constexpr int field_base(Dtype dtype, int bits) {
  return bits == 4 && dtype == Dtype::kHalf ? 3 : 0;
}

constexpr int field_bit(int base, int bits, int column_half, int k_half) {
  return bits == 4 ? (base + 4 * (1 - column_half) + 8 * k_half) % 16 : 8 * column_half;
}

// The bit at which the kernel sees a column's codes after mask, byte swap and shift.
constexpr int read_bit(Dtype dtype, int bits, Dequant dequant, int column_half) {
  if (bits == 8) return 0;
  const int upper = field_base(dtype, bits) + 4;
  return dequant == Dequant::kOneField || column_half == 0 ? upper : upper - 4;
}

// Where one code lies: word index inside the tile, bit inside the word (the field may wrap
// around the end of its 16-bit half; see rotate16).
struct CodePosition {
  int word;
  int half;  // 0: bits 15..0 of the word, 1: bits 31..16
  int bit;   // lowest bit of the field inside the half, before wrapping
};

// k, n inside the tile, both in [0, 64).
constexpr CodePosition code_position(int base, int bits, int k, int n) {
  const int slice = k / kSlice;
  // The mma fragment maps (PTX ISA, "Matrix Fragments for mma.m16n8k16"): in a 16 x 16 block,
  // lane 4g + t owns n in {g, g + 8} and k in {2t, 2t + 1, 2t + 8, 2t + 9}.
  const int k_half = k % kSlice / 8, t = k % 8 / 2, half = k % 2;
  const int j = n / 16, column_half = n % 16 / 8, g = n % 8;
  const int plane = bits == 8 ? k_half : 0;
  const int lane = 4 * g + t;
  return {slice * atom_words(bits) + plane * kPlaneWords + lane * kWordsPerLane + j, half,
          field_bit(base, bits, column_half, k_half)};
}

constexpr uint32_t rotate16(uint32_t code, int bit) {
  return ((code << bit) | (code >> (16 - bit))) & 0xffffu;
}

// Scales (and zeros) of one row are permuted inside each 64 columns so that lane 4g + t finds the
// eight it needs, for n = g + 8i, as one 16-byte load at element 8g.
constexpr int scale_position(int n) { return n % 8 * 8 + n / 8; }

}  // namespace padmarlin
