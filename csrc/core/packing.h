// SPDX-License-Identifier: Apache-2.0
// How checkpoint formats pack codes into 32-bit words (padmarlin/packing.py mirrors it).
// Pure constexpr C++: no CUDA, no torch.
#pragma once

#include <cstdint>

namespace padmarlin {

// Words are a matrix; P = 32 / bits codes lie in each, lowest bits first.
enum class Packing : int {
  kGptq = 0,               // (k / P, n): a word holds P rows of one column
  kAwq = 1,                // (k, n / P): P columns of one row, in AWQ's order; 4 bits only
  kCompressedTensors = 2,  // (n, k / P): GPTQ transposed
};

constexpr bool packs(Packing packing, int bits) {
  switch (packing) {
    case Packing::kGptq:
    case Packing::kCompressedTensors:
      return bits == 4 || bits == 8;
    case Packing::kAwq:
      return bits == 4;
  }
  return false;
}

// Where one code lies: in which word, and its lowest bit there.
struct CodeAddress {
  int word_row, word_column, bit;
};

constexpr CodeAddress code_address(Packing packing, int bits, int row, int column) {
  const int per_word = 32 / bits;
  if (packing == Packing::kAwq) {
    // The even columns of eight fill the lower half of a word, the odd ones the upper half:
    // nibbles 0 to 7 hold columns 0 2 4 6 1 3 5 7.
    const int j = column % per_word;
    return {row, column / per_word, (j % 2 * (per_word / 2) + j / 2) * bits};
  }
  const int word = row / per_word, bit = row % per_word * bits;
  if (packing == Packing::kGptq) return {word, column, bit};
  return {column, word, bit};
}

// How many columns (n) of codes a matrix of words holds.
constexpr int64_t held_columns(Packing packing, int bits, int64_t word_rows, int64_t word_columns) {
  switch (packing) {
    case Packing::kGptq:
      return word_columns;
    case Packing::kAwq:
      return word_columns * (32 / bits);
    case Packing::kCompressedTensors:
      return word_rows;
  }
  return 0;
}

}  // namespace padmarlin
