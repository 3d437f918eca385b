// SPDX-License-Identifier: Apache-2.0
// The registry of kernels.
#include "instances.h"

#include <stdexcept>
#include <vector>

namespace padmarlin::emulator {
namespace {

std::vector<DequantizeInstance>& dequantizes() {
  static std::vector<DequantizeInstance> instances;
  return instances;
}

std::vector<FixupInstance>& fixups() {
  static std::vector<FixupInstance> instances;
  return instances;
}

std::vector<GemmInstance>& gemms() {
  static std::vector<GemmInstance> instances;
  return instances;
}

std::vector<WgmmaInstance>& wgmmas() {
  static std::vector<WgmmaInstance> instances;
  return instances;
}

std::vector<RepackInstance>& repacks() {
  static std::vector<RepackInstance> instances;
  return instances;
}

std::vector<RoundInstance>& rounds() {
  static std::vector<RoundInstance> instances;
  return instances;
}

const char* name_of(Dtype dtype) {
  return dtype == Dtype::kHalf ? "Dtype::kHalf" : "Dtype::kBfloat16";
}

}  // namespace

std::string definition(const FixupKey& key) {
  return std::to_string(key.threads) + ", " + std::to_string(key.vectors);
}

// The template arguments that say which weights a kernel takes.
template <typename Key>
static std::string weights_of(const Key& key) {
  const char* const kinds[] = {"kTwoField", "kOneField", "kWide"};
  return std::string(name_of(key.dtype)) + ", " + std::to_string(key.bits) +
         ", Dequant::" + kinds[static_cast<int>(key.dequant)] + ", " +
         (key.asymmetric ? "true" : "false");
}

std::string definition(const DequantizeKey& key) { return weights_of(key); }

std::string definition(const GemmKey& key) {
  return weights_of(key) + ", " + std::to_string(key.m_steps);
}

std::string definition(const WgmmaKey& key) {
  return weights_of(key) + ", " + std::to_string(key.rows);
}

std::string definition(const RepackKey& key) {
  const char* const packings[] = {"kGptq", "kAwq", "kCompressedTensors"};
  return std::to_string(key.bits) + ", Packing::" + packings[static_cast<int>(key.packing)];
}

std::string definition(const RoundKey& key) { return name_of(key.dtype); }

bool register_dequantize(const DequantizeInstance& instance) {
  dequantizes().push_back(instance);
  return true;
}

bool register_fixup(const FixupInstance& instance) {
  fixups().push_back(instance);
  return true;
}

bool register_gemm(const GemmInstance& instance) {
  gemms().push_back(instance);
  return true;
}

bool register_wgmma(const WgmmaInstance& instance) {
  wgmmas().push_back(instance);
  return true;
}

bool register_repack(const RepackInstance& instance) {
  repacks().push_back(instance);
  return true;
}

bool register_round(const RoundInstance& instance) {
  rounds().push_back(instance);
  return true;
}

const DequantizeInstance& find_dequantize(const DequantizeKey& key) {
  for (const DequantizeInstance& instance : dequantizes()) {
    if (instance.key == key) return instance;
  }
  throw std::invalid_argument("dequantize_kernel<" + definition(key) + "> is not in this program");
}

const FixupInstance& find_fixup(const FixupKey& key) {
  for (const FixupInstance& instance : fixups()) {
    if (instance.key == key) return instance;
  }
  throw std::invalid_argument("fixup_probe<" + definition(key) + "> is not in this program");
}

const GemmInstance& find_gemm(const GemmKey& key) {
  for (const GemmInstance& instance : gemms()) {
    if (instance.key == key) return instance;
  }
  throw std::invalid_argument("gemm_kernel<" + definition(key) + "> is not in this program");
}

const RepackInstance& find_repack(const RepackKey& key) {
  for (const RepackInstance& instance : repacks()) {
    if (instance.key == key) return instance;
  }
  throw std::invalid_argument("repack_kernel<" + definition(key) + "> is not in this program");
}

const RoundInstance& find_round(const RoundKey& key) {
  for (const RoundInstance& instance : rounds()) {
    if (instance.key == key) return instance;
  }
  throw std::invalid_argument("round_kernel<" + definition(key) + "> is not in this program");
}

const WgmmaInstance& find_wgmma(const WgmmaKey& key) {
  for (const WgmmaInstance& instance : wgmmas()) {
    if (instance.key == key) return instance;
  }
  throw std::invalid_argument("wgmma_kernel<" + definition(key) + "> is not in this program");
}

}  // namespace padmarlin::emulator
