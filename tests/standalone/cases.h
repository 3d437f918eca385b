// SPDX-License-Identifier: Apache-2.0
// Problems made from a few numbers, run on the emulator, and compared bit for bit with a result
// computed here from the unpacked codes.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "instances.h"
#include "runtime.h"

namespace padmarlin::emulator {

// A launch that did the wrong thing: what, where, got and expected.
class Failure : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct Schedule {
  uint64_t seed;
  Delivery delivery;
  int resident_blocks;
};

std::string describe(const Schedule& schedule);

// A random number that depends on its arguments alone.
uint32_t mixed(uint32_t a, uint32_t b = 0, uint32_t c = 0);

// What the numbers are. In all of them what one group of warps adds is exact in fp32, whatever the
// order.
enum class Values {
  kIntegers,  // activations -2..2, scales that are powers of two
  kOneHot,    // each row of A picks one row of the weight; scales with full mantissas: the rounding
  kOrdered,   // three parts of K of 2^24 x, x and -2^24 x: their sum tells in which order it was
              // taken
};

struct GemmCase {
  GemmKey kernel = {};
  int m = 5, n = 72, k = 200;
  int group_size = 64;  // rows of the padded K per scale row, a multiple of 16
  int front_pad = 0;
  bool act_order = false;
  bool bias = false;
  int a_offset = 0, a_gap = 0;      // elements before A's first, and between its rows
  int out_offset = 0, out_gap = 0;  // the same of the output
  int column_warps = 2, k_groups = 2;
  int blocks = 0;  // stream-K over so many; 0: a block for each tile
  int splits = 1;  // parts of K, the same for every tile
  Values values = Values::kIntegers;
  bool tampered = false;  // tables that name a row or a column outside
  int launches = 1;       // with the same counters and what the one before left in the partials
  // The wgmma kernel instead, with as many rows a block: the first `streamed` tiles are cut, the
  // others go round the blocks.
  int wgmma_rows = 0, streamed = 0;
  bool dequantize = false;  // the dequantize kernel instead: k rows of output, no activations
};

inline DequantizeKey dequantize_key(const GemmCase& problem) {
  const GemmKey& key = problem.kernel;
  return {key.dtype, key.bits, key.dequant, key.asymmetric};
}

struct RepackCase {
  RepackKey kernel = {};
  int field_base = 3;
  int k = 117, n = 90, padded_k = 192;
  int first_column = 0, columns_behind = 0;  // of the words, not of the weight: a column shard
  int gap = 0;                               // words between rows of words
  bool pad_codes = false;
  bool tampered = false;
};

// How tiles are cut (core/stream_k.h), and the sums that follow from it.
struct FixupCase {
  FixupKey kernel = {};
  Partition partition = {};
  int launches = 2;  // with the same counters; partials are NaN before each
};

// Products with every kind of tail to round away, and a bias that moves the tie.
struct RoundCase {
  RoundKey kernel = {};
  int m = 5, n = 72;
  bool bias = false;
  int gap = 0;                      // between the rows of the products; even
  int out_offset = 0, out_gap = 0;  // elements before the output's first, and between its rows
};

std::string describe(const RoundCase& problem);
std::string describe(const FixupCase& problem);
std::string describe(const GemmCase& problem);
std::string describe(const RepackCase& problem);

// Throw Failure, or LaunchError from the emulator.
void run(const FixupCase& problem, const Schedule& schedule);
void run(const GemmCase& problem, const Schedule& schedule);
void run(const RepackCase& problem, const Schedule& schedule);
void run(const RoundCase& problem, const Schedule& schedule);

}  // namespace padmarlin::emulator
