// SPDX-License-Identifier: Apache-2.0
// The kernels that are linked into this program. Each is compiled by a source of its own with
// nothing around it, so that a sanitizer can instrument a kernel and leave its launcher alone, and
// a planted bug costs one small compilation.
#pragma once

#include <compare>
#include <cstddef>
#include <string>

#include "cuda/align.h"
#include "cuda/dequantize.h"
#include "cuda/fixup.cuh"
#include "cuda/gemm.h"
#include "cuda/repack.h"
#include "cuda/round.h"

namespace padmarlin::emulator {

struct GemmKey {
  Dtype dtype = Dtype::kHalf;
  int bits = 4;
  Dequant dequant = Dequant::kTwoField;
  bool asymmetric = false;
  int m_steps = 1;

  auto operator<=>(const GemmKey&) const = default;
};

struct GemmInstance {
  GemmKey key;
  void (*gemm)(GemmArguments, GemmChoice);
};

struct DequantizeKey {
  Dtype dtype = Dtype::kHalf;
  int bits = 4;
  Dequant dequant = Dequant::kTwoField;
  bool asymmetric = false;

  auto operator<=>(const DequantizeKey&) const = default;
};

struct DequantizeInstance {
  DequantizeKey key;
  void (*dequantize)(DequantizeArguments);
};

struct WgmmaKey {
  Dtype dtype = Dtype::kHalf;
  int bits = 4;
  Dequant dequant = Dequant::kTwoField;
  bool asymmetric = false;
  int rows = 64;

  auto operator<=>(const WgmmaKey&) const = default;
};

struct WgmmaInstance {
  WgmmaKey key;
  void (*gemm)(GemmArguments, GemmChoice, TensorMap);
  void (*gather)(AlignArguments);  // the pass before it, through a column table
  void (*align)(AlignArguments);   // without one
};

struct FixupKey {
  int threads = 32;  // that hold a tile
  int vectors = 1;   // of four floats in each

  auto operator<=>(const FixupKey&) const = default;
};

struct FixupInstance {
  FixupKey key;
  void (*add)(Partition, SplitWorkspace, const float* terms, float* out);
};

struct RepackKey {
  int bits = 4;
  Packing packing = Packing::kGptq;

  auto operator<=>(const RepackKey&) const = default;
};

struct RepackInstance {
  RepackKey key;
  void (*repack)(RepackArguments);
};

struct RoundKey {
  Dtype dtype = Dtype::kHalf;

  auto operator<=>(const RoundKey&) const = default;
};

struct RoundInstance {
  RoundKey key;
  void (*round)(RoundArguments);
};

// The definitions that compile it: template arguments for -DPADMARLIN_INSTANCE.
std::string definition(const DequantizeKey& key);
std::string definition(const FixupKey& key);
std::string definition(const GemmKey& key);
std::string definition(const RepackKey& key);
std::string definition(const RoundKey& key);
std::string definition(const WgmmaKey& key);

// Called before main by each instance.
bool register_dequantize(const DequantizeInstance& instance);
bool register_fixup(const FixupInstance& instance);
bool register_gemm(const GemmInstance& instance);
bool register_repack(const RepackInstance& instance);
bool register_round(const RoundInstance& instance);
bool register_wgmma(const WgmmaInstance& instance);

// Throw std::invalid_argument if the program has no such instance.
const DequantizeInstance& find_dequantize(const DequantizeKey& key);
const FixupInstance& find_fixup(const FixupKey& key);
const GemmInstance& find_gemm(const GemmKey& key);
const RepackInstance& find_repack(const RepackKey& key);
const RoundInstance& find_round(const RoundKey& key);
const WgmmaInstance& find_wgmma(const WgmmaKey& key);

}  // namespace padmarlin::emulator
