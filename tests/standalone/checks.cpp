// SPDX-License-Identifier: Apache-2.0
// The named tests: a few sharp cases for each thing a kernel must get right, and `ragged_*`, random
// cases for every instance.
#include "checks.h"

namespace padmarlin::emulator {
namespace {

constexpr RepackKey kAwq{.packing = Packing::kAwq};
constexpr FixupKey kWideFixup{.threads = 64, .vectors = 8};
constexpr GemmKey kHalf4;  // the cheapest kernel: what is tested does not depend on the instance
constexpr GemmKey kBfloat164{.dtype = Dtype::kBfloat16};  // rounds sums of a few hundred units
// Scales as large as 2^24.
constexpr GemmKey kOrderTelling{
    .dtype = Dtype::kBfloat16, .dequant = Dequant::kWide, .asymmetric = true};
constexpr GemmKey kHalf4Rows16{.m_steps = 2};
constexpr GemmKey kHalf4Rows32{.m_steps = 4};
constexpr GemmKey kHalf4Rows64{.m_steps = 8};

// One row of each scale group and whole column tiles, with the full rounding of the weight.
std::vector<GemmCase> rounding(GemmKey kernel) {
  std::vector<GemmCase> cases;
  for (const Values values : {Values::kOneHot, Values::kIntegers}) {
    cases.push_back({.kernel = kernel, .m = 16, .n = 72, .k = 150, .values = values});
  }
  return cases;
}

std::vector<GemmCase> sizes_of_m() {
  std::vector<GemmCase> cases;
  for (const int m : {1, 7, 8, 9, 17}) {
    cases.push_back({.m = m, .k = 100, .a_gap = 12});
    cases.push_back({.m = m, .k = 99, .a_gap = 12});  // an odd pitch: element by element
  }
  for (const int m : {9, 16, 21}) cases.push_back({.kernel = kHalf4Rows16, .m = m, .k = 64});
  for (const int m : {19, 32, 45}) cases.push_back({.kernel = kHalf4Rows32, .m = m, .k = 64});
  for (const int m : {45, 70}) cases.push_back({.kernel = kHalf4Rows64, .m = m, .k = 64});
  return cases;
}

std::vector<GemmCase> sizes_of_n() {
  std::vector<GemmCase> cases;
  for (const int n : {1, 2, 63, 64, 65, 130, 257}) {
    cases.push_back({.m = 3, .n = n, .k = 64, .bias = true, .out_gap = 3});
    cases.push_back({.m = 3, .n = n, .k = 64, .bias = true, .out_offset = 1, .out_gap = 4});
  }
  return cases;
}

std::vector<GemmCase> sizes_of_k() {
  std::vector<GemmCase> cases;
  for (const int k : {1, 2, 4, 7, 8, 63, 64, 65, 100, 130}) {
    cases.push_back({.k = k, .a_gap = 16});
    cases.push_back({.k = k, .a_gap = 16 + (k + 1) % 2});  // an odd pitch: element by element
    cases.push_back({.k = k, .a_gap = static_cast<int>(round_up(k, 8)) + 8 - k});
  }
  return cases;
}

// Everything that decides the width of a copy: address, row pitch and front pad.
std::vector<GemmCase> alignments_of_a() {
  std::vector<GemmCase> cases;
  for (const int front_pad : {0, 8, 4, 2, 1}) {
    for (const int offset : {0, 8, 4, 2, 1}) {
      for (const int gap : {0, 8, 4, 2, 1}) {
        if (front_pad != 0 && offset != 0 && gap != 0) continue;
        cases.push_back(
            {.m = 6, .n = 64, .k = 96, .front_pad = front_pad, .a_offset = offset, .a_gap = gap});
      }
    }
  }
  return cases;
}

std::vector<Check> sharp_checks() {
  return {
      {"pipeline",
       {{.k = 960},
        {.n = 300, .k = 704, .column_warps = 4, .k_groups = 1},
        {.n = 200, .k = 960, .column_warps = 1, .k_groups = 3},
        {.m = 8, .k = 640, .act_order = true}}},
      {"pipeline_rows",
       {{.kernel = kHalf4Rows16, .m = 19, .k = 700},
        {.kernel = kHalf4Rows32, .m = 19, .k = 700},
        {.kernel = kHalf4Rows64, .m = 70, .k = 700},
        {.kernel = kHalf4Rows16, .m = 19, .k = 704, .column_warps = 1},  // two turns of one warp
        {.kernel = kHalf4Rows32, .m = 27, .k = 704, .column_warps = 4},
        {.kernel = kHalf4Rows64, .m = 70, .k = 704, .column_warps = 4}}},
      {"groups_without_tiles",
       {{.k = 64, .k_groups = 4},
        {.k = 130, .k_groups = 4, .blocks = 2},
        {.n = 300, .k = 200, .column_warps = 1, .k_groups = 4, .blocks = 2}}},
      {"stream_k",
       {{.n = 300, .k = 448, .blocks = 5, .launches = 2},
        {.m = 19, .n = 200, .k = 448, .bias = true, .k_groups = 1, .blocks = 7, .launches = 2},
        {.kernel = kHalf4Rows32, .m = 70, .n = 200, .k = 320, .blocks = 4},
        {.n = 520, .k = 128, .act_order = true, .blocks = 2}}},
      {"m_tail", sizes_of_m()},
      {"n_tail", sizes_of_n()},
      {"k_tail", sizes_of_k()},
      {"front_pad", {{.front_pad = 8}, {.front_pad = 16}, {.front_pad = 5}, {.front_pad = 60}}},
      {"activation_alignment", alignments_of_a()},
      {"act_order",
       {{.m = 18, .act_order = true},
        {.k = 65, .group_size = 16, .act_order = true},
        {.m = 8, .k = 130, .act_order = true, .column_warps = 1},
        {.kernel = kHalf4Rows64, .m = 45, .k = 130, .act_order = true}}},
      {"scale_rows", {{.group_size = 16}, {.group_size = 48}, {.k = 130, .front_pad = 40}}},
      {"output_strides",
       {{.n = 71, .out_offset = 1},
        {.n = 72, .out_offset = 1, .out_gap = 2},
        {.n = 72, .out_gap = 1}}},
      {"bias",
       {{.kernel = kBfloat164, .n = 71, .k = 450, .bias = true},
        {.kernel = kBfloat164, .n = 65, .k = 450, .bias = true, .splits = 2}}},
      {"tampered_tables",
       {{.act_order = true, .tampered = true}, {.group_size = 16, .tampered = true}}},
      {"split_k", {{.m = 3, .k = 448, .splits = 3}, {.m = 2, .k = 320, .bias = true, .splits = 2}}},
      {"reduction_order",
       {{.kernel = kOrderTelling, .k = 192, .k_groups = 1, .splits = 3, .values = Values::kOrdered},
        {.kernel = kOrderTelling, .k = 192, .k_groups = 3, .values = Values::kOrdered}}},
      {"symmetric_two_field", rounding({})},
      {"asymmetric_two_field", rounding({.asymmetric = true})},
      {"symmetric_one_field", rounding({.dequant = Dequant::kOneField})},
      {"asymmetric_wide", rounding({.dequant = Dequant::kWide, .asymmetric = true})},
      {"bfloat16_two_field", rounding({.dtype = Dtype::kBfloat16})},
      {"bfloat16_wide",
       rounding({.dtype = Dtype::kBfloat16, .dequant = Dequant::kWide, .asymmetric = true})},
      {"eight_bits", rounding({.bits = 8, .dequant = Dequant::kOneField})},
      {"eight_bits_asymmetric",
       rounding({.bits = 8, .dequant = Dequant::kOneField, .asymmetric = true})},
      {"eight_bits_wide", rounding({.bits = 8, .dequant = Dequant::kWide, .asymmetric = true})},
      {"fixup_stream_k",
       {},
       {},
       {{.partition = stream_k(7, 5, 9, 7)},
        {.partition = stream_k(1, 9, 6, 1)},
        {.kernel = kWideFixup, .partition = stream_k(5, 4, 3, 4)}}},
      {"fixup_split_k",
       {},
       {},
       {{.partition = split_k(2, 7, 4, 3)},
        {.partition = split_k(9, 4, 2, 3)},  // one block has all parts of a tile
        {.kernel = kWideFixup, .partition = split_k(3, 5, 12, 4)}}},
      {"repack_four_bits",
       {},
       {{},
        {.field_base = 0, .first_column = 5, .columns_behind = 2, .gap = 3, .pad_codes = true}}},
      {"repack_eight_bits",
       {},
       {{.kernel = {.bits = 8}, .field_base = 0},
        {.kernel = {.bits = 8}, .field_base = 0, .first_column = 1, .gap = 3, .pad_codes = true}}},
      {"repack_awq",
       {},
       {{.kernel = kAwq}, {.kernel = kAwq, .first_column = 13, .gap = 1, .pad_codes = true}}},
      {"repack_compressed_tensors",
       {},
       {{.kernel = {.packing = Packing::kCompressedTensors}},
        {.kernel = {.packing = Packing::kCompressedTensors}, .first_column = 3, .gap = 2},
        {.kernel = {.bits = 8, .packing = Packing::kCompressedTensors}, .field_base = 0}}},
      {"repack_padding",
       {},
       {{.k = 64, .n = 1, .padded_k = 64, .columns_behind = 9, .pad_codes = true},
        {.k = 1, .n = 65, .padded_k = 128},
        {.k = 5, .n = 64, .padded_k = 64, .gap = 1, .pad_codes = true}}},
      {"repack_tampered_tables",
       {},
       {{.pad_codes = true, .tampered = true},
        {.kernel = kAwq, .pad_codes = true, .tampered = true}}},
  };
}

// ---- the wgmma kernel

GemmCase wgmma_case(GemmCase made, bool aligned = true) {
  if (made.wgmma_rows == 0) made.wgmma_rows = 64;
  if (made.blocks == 0) made.blocks = 2;
  made.k_groups = 1;  // one warpgroup adds all of a column's products
  if (aligned) made.a_gap = static_cast<int>(round_up(made.k + made.a_gap, 8)) - made.k;
  return made;
}

std::vector<GemmCase> wgmma_cases(std::vector<GemmCase> cases, bool aligned = true) {
  for (GemmCase& made : cases) made = wgmma_case(made, aligned);
  return cases;
}

std::vector<Check> wgmma_checks() {
  return {
      {"wgmma_ring", wgmma_cases({{.m = 70, .n = 300, .k = 900, .blocks = 1}})},
      {"wgmma_ring_rows_48", wgmma_cases({{.m = 50, .k = 900, .wgmma_rows = 48}})},
      {"wgmma_ring_rows_128", wgmma_cases({{.m = 130, .k = 900, .wgmma_rows = 128}})},
      {"wgmma_ring_rows_160", wgmma_cases({{.m = 170, .k = 900, .wgmma_rows = 160}})},
      {"wgmma_m_tail", wgmma_cases({{.m = 1}, {.m = 15}, {.m = 16}, {.m = 65}})},
      {"wgmma_n_tail", wgmma_cases({{.n = 1, .bias = true},
                                    {.n = 63, .out_gap = 1},
                                    {.n = 129, .bias = true, .out_offset = 1},
                                    {.n = 264, .bias = true, .out_gap = 8},
                                    {.n = 250, .out_offset = 2, .out_gap = 6}})},
      {"wgmma_k_tail", wgmma_cases({{.k = 1}, {.k = 7}, {.k = 64}, {.k = 65, .a_gap = 20}})},
      {"wgmma_front_pad", wgmma_cases({{.front_pad = 16}, {.k = 130, .front_pad = 61}})},
      {"wgmma_scale_rows",
       wgmma_cases({{.group_size = 16}, {.group_size = 48}, {.k = 130, .front_pad = 40}})},
      {"wgmma_tampered_tables", wgmma_cases({{.group_size = 16, .tampered = true}})},
      {"wgmma_stream_k", wgmma_cases({{.m = 70, .k = 450, .bias = true, .blocks = 3, .streamed = 2},
                                      {.m = 3, .k = 700, .blocks = 4, .streamed = 1},
                                      {.m = 70, .n = 520, .k = 200, .blocks = 4, .streamed = 5}})},
      {"wgmma_split_k", wgmma_cases({{.m = 70, .k = 450, .blocks = 6, .splits = 3}})},
      {"wgmma_asymmetric", wgmma_cases(rounding({.asymmetric = true}))},
      {"wgmma_eight_bits",
       wgmma_cases(rounding({.bits = 8, .dequant = Dequant::kOneField, .asymmetric = true}))},
      {"wgmma_unaligned_a", wgmma_cases({{.k = 99},
                                         {.m = 1, .k = 99},
                                         {.k = 96, .front_pad = 40, .a_offset = 1},
                                         {.m = 9, .k = 2100, .a_offset = 4, .a_gap = 4}},
                                        false)},
      {"wgmma_act_order", wgmma_cases({{.m = 18, .act_order = true},
                                       {.k = 65, .group_size = 16, .act_order = true},
                                       {.act_order = true, .tampered = true}},
                                      false)},
      {"wgmma_bias",
       wgmma_cases({{.kernel = kBfloat164, .m = 20, .n = 300, .k = 450, .bias = true}})},
  };
}

// ---- the dequantize kernel

std::vector<GemmCase> dequantize_cases(std::vector<GemmCase> cases) {
  for (GemmCase& made : cases) made.dequantize = true;
  return cases;
}

std::vector<Check> dequantize_checks() {
  return {
      {"dequantize_edges", dequantize_cases({{.n = 72, .k = 100, .group_size = 16, .out_gap = 8},
                                             {.n = 75, .k = 130, .group_size = 16, .out_gap = 13},
                                             {.n = 1, .k = 1, .out_gap = 7}})},
      {"dequantize_addresses", dequantize_cases({{.n = 64, .k = 70, .out_offset = 1, .out_gap = 8},
                                                 {.n = 64, .k = 70, .out_offset = 4, .out_gap = 3},
                                                 {.n = 63, .k = 70}})},
      {"dequantize_front_pad",
       dequantize_cases({{.n = 72, .k = 100, .front_pad = 40}, {.n = 8, .k = 20, .front_pad = 1}})},
      {"dequantize_act_order",
       dequantize_cases({{.n = 72, .k = 200, .group_size = 32, .act_order = true}})},
      {"dequantize_tampered_tables",
       dequantize_cases({{.tampered = true}, {.act_order = true, .tampered = true}})},
  };
}

// ---- the rounding kernel

std::vector<Check> round_checks() {
  constexpr RoundKey kHalf, kBfloat16{Dtype::kBfloat16};
  return {
      {"round_edges",
       {},
       {},
       {},
       {{.kernel = kHalf, .m = 1, .n = 1, .bias = true, .out_gap = 63},
        {.kernel = kHalf, .m = 9, .n = 63, .out_gap = 1},
        {.kernel = kHalf, .m = 66, .n = 130, .bias = true, .gap = 62},
        {.kernel = kHalf, .m = 130, .n = 65, .out_gap = 3}}},
      {"round_addresses",
       {},
       {},
       {},
       {{.kernel = kHalf, .m = 9, .n = 64, .bias = true, .out_offset = 1, .out_gap = 2},
        {.kernel = kHalf, .m = 9, .n = 66, .out_gap = 1},
        {.kernel = kHalf, .m = 3, .n = 71, .out_offset = 3}}},
      {"round_bfloat16",
       {},
       {},
       {},
       {{.kernel = kBfloat16, .m = 20, .n = 129, .bias = true, .gap = 2}}},
  };
}

// ---- random cases

std::vector<GemmKey> all_kernels() {
  std::vector<GemmKey> kernels;
  for (const Dtype dtype : {Dtype::kHalf, Dtype::kBfloat16}) {
    for (const int bits : {4, 8}) {
      for (const Dequant dequant : {Dequant::kTwoField, Dequant::kOneField, Dequant::kWide}) {
        for (const bool asymmetric : {false, true}) {
          if (bits == 8 && dequant == Dequant::kTwoField) continue;
          if (dequant == Dequant::kWide && !asymmetric) continue;
          kernels.push_back({dtype, bits, dequant, asymmetric, 1});
        }
      }
    }
  }
  // The other sizes of M: in as many kernels as show every stage layout.
  for (const int m_steps : {2, 4, 8}) {
    kernels.push_back({.m_steps = m_steps});
    kernels.push_back({.dtype = Dtype::kBfloat16,
                       .bits = 8,
                       .dequant = Dequant::kOneField,
                       .asymmetric = true,
                       .m_steps = m_steps});
  }
  return kernels;
}

std::string name_of(const GemmKey& kernel) {
  const char* const kinds[] = {"two_field", "one_field", "wide"};
  return std::string(kernel.dtype == Dtype::kHalf ? "half" : "bfloat16") + "_w" +
         std::to_string(kernel.bits) + "_" + kinds[static_cast<int>(kernel.dequant)] +
         (kernel.asymmetric ? "_zeros" : "") + "_m" + std::to_string(8 * kernel.m_steps);
}

std::string name_of(Packing packing) {
  const char* const names[] = {"gptq", "awq", "compressed_tensors"};
  return names[static_cast<int>(packing)];
}

GemmCase random_gemm(const GemmKey& kernel, uint32_t seed) {
  uint32_t draw = 0;
  const auto below = [&](uint32_t bound) { return static_cast<int>(mixed(seed, ++draw) % bound); };
  GemmCase made{.kernel = kernel};
  made.m = 1 + below(10 * kernel.m_steps);
  made.n = 1 + below(below(4) ? 140 : 600);
  made.k = 1 + below(below(4) ? 200 : 500);
  made.group_size = 16 << below(4);
  made.act_order = below(3) == 0;
  if (!made.act_order && below(2)) made.front_pad = below(2) ? below(60) : 8 * below(8);
  made.bias = below(2) == 0;
  if (below(2)) made.a_offset = below(9);
  if (below(2)) made.a_gap = below(17);
  if (below(2)) made.out_offset = below(3);
  if (below(2)) made.out_gap = below(5);
  const int tiles = div_up(made.front_pad + made.k, kTile);
  if (tiles > 1 && below(4) == 0) made.splits = 2 + below(tiles - 1);
  if (made.splits == 1 && below(2)) made.blocks = 1 + below(7);
  made.column_warps = 1 << below(3);
  made.k_groups = 1 + below(made.column_warps == 1 ? 4 : 2);
  const BlockShape shape{kernel.m_steps, made.column_warps, made.k_groups};
  if (shared_bytes(kernel.bits, kernel.asymmetric, shape) > 227 * 1024) made.k_groups = 1;
  if (below(3) == 0) made.values = Values::kOneHot;
  return made;
}

GemmCase random_dequantize(const GemmKey& kernel, uint32_t seed) {
  GemmCase made = random_gemm(kernel, seed + 300);
  made.dequantize = true;
  return made;
}

RoundCase random_round(const RoundKey& kernel, uint32_t seed) {
  uint32_t draw = 400;
  const auto below = [&](uint32_t bound) { return static_cast<int>(mixed(seed, ++draw) % bound); };
  RoundCase made{.kernel = kernel, .m = 1 + below(150), .n = 1 + below(200)};
  made.bias = below(2) == 0;
  made.gap = 2 * below(4);
  if (below(2)) made.out_offset = below(5);
  if (below(2)) made.out_gap = below(5);
  return made;
}

RepackCase random_repack(const RepackKey& kernel, uint32_t seed) {
  uint32_t draw = 100;
  const auto below = [&](uint32_t bound) { return static_cast<int>(mixed(seed, ++draw) % bound); };
  RepackCase made{.kernel = kernel, .field_base = kernel.bits == 4 && below(2) ? 3 : 0};
  made.k = 1 + below(200);
  made.n = 1 + below(200);
  made.padded_k = static_cast<int>(round_up(made.k + below(70), kTile));
  if (below(2)) made.first_column = below(20);
  if (below(2)) made.columns_behind = below(20);
  made.gap = below(4);
  made.pad_codes = below(2) == 0;
  return made;
}

GemmCase random_wgmma(const GemmKey& kernel, int rows, uint32_t seed) {
  uint32_t draw = 200;
  const auto below = [&](uint32_t bound) { return static_cast<int>(mixed(seed, ++draw) % bound); };
  GemmCase made{.kernel = kernel};
  made.wgmma_rows = rows;
  made.m = 1 + below(2 * rows);
  made.n = 1 + below(600);
  made.k = 1 + below(500);
  made.group_size = 16 << below(4);
  made.act_order = below(4) == 0;
  if (!made.act_order && below(2)) made.front_pad = below(60);
  made.bias = below(2) == 0;
  const bool aligned = below(4) != 0;
  if (below(2)) made.a_offset = aligned ? 8 : below(9);
  if (below(2)) made.a_gap = aligned ? 8 * below(4) : below(17);
  if (below(2)) made.out_offset = below(9);
  if (below(2)) made.out_gap = below(9);
  made.blocks = 1 + below(4);
  if (below(2)) made.streamed = 1 + below(div_up(made.m, rows) * div_up(made.n, 256));
  if (below(3) == 0) made.values = Values::kOneHot;
  return wgmma_case(made, aligned);
}

// Every kind of stage and every number of rows; what dequantization does is the mma kernel's test,
// too.
std::vector<std::pair<GemmKey, int>> wgmma_instances() {
  constexpr GemmKey kHalf8{.bits = 8, .dequant = Dequant::kOneField, .asymmetric = true};
  constexpr GemmKey kBfloat168{.dtype = Dtype::kBfloat16, .bits = 8, .dequant = Dequant::kOneField};
  constexpr GemmKey kBfloat164Zeros{.dtype = Dtype::kBfloat16, .asymmetric = true};
  constexpr GemmKey kBfloat164Wide{
      .dtype = Dtype::kBfloat16, .dequant = Dequant::kWide, .asymmetric = true};
  return {{kHalf4, 48},           {kHalf4, 64},      {kHalf8, 64},  {kBfloat164Zeros, 80},
          {kHalf4, 96},           {kBfloat168, 112}, {kHalf4, 128}, {kBfloat168, 128},
          {kBfloat164Zeros, 128}, {kHalf8, 144},     {kHalf4, 160}, {kHalf8, 160},
          {kBfloat164Wide, 160}};
}

std::vector<Check> all_checks() {
  constexpr uint32_t kCasesPerInstance = 24, kCasesPerWgmma = 4;
  std::vector<Check> all = sharp_checks();
  for (const Check& check : wgmma_checks()) all.push_back(check);
  for (const Check& check : dequantize_checks()) all.push_back(check);
  for (const Check& check : round_checks()) all.push_back(check);
  for (const Dtype dtype : {Dtype::kHalf, Dtype::kBfloat16}) {
    Check check{.name =
                    std::string("ragged_round_") + (dtype == Dtype::kHalf ? "half" : "bfloat16")};
    for (uint32_t seed = 0; seed < kCasesPerInstance; ++seed) {
      check.rounds.push_back(random_round({dtype}, seed));
    }
    all.push_back(check);
  }
  for (const auto& [kernel, rows] : wgmma_instances()) {
    Check check{.name = "ragged_wgmma_" + name_of(kernel)};
    check.name.replace(check.name.rfind("_m"), std::string::npos, "_m" + std::to_string(rows));
    for (uint32_t seed = 0; seed < kCasesPerWgmma; ++seed) {
      check.gemms.push_back(random_wgmma(kernel, rows, seed + rows));
    }
    all.push_back(check);
  }
  for (const GemmKey& kernel : all_kernels()) {
    Check check{.name = "ragged_" + name_of(kernel)};
    for (uint32_t seed = 0; seed < kCasesPerInstance; ++seed) {
      check.gemms.push_back(random_gemm(kernel, seed));
    }
    all.push_back(check);
    if (kernel.m_steps > 1) continue;  // the weights are the same
    Check dequantize{.name = "ragged_dequantize_" + name_of(kernel)};
    dequantize.name.erase(dequantize.name.rfind("_m"));
    for (uint32_t seed = 0; seed < kCasesPerInstance; ++seed) {
      dequantize.gemms.push_back(random_dequantize(kernel, seed));
    }
    all.push_back(dequantize);
  }
  for (const Packing packing : {Packing::kGptq, Packing::kAwq, Packing::kCompressedTensors}) {
    for (const int bits : {4, 8}) {
      if (!packs(packing, bits)) continue;
      Check check{.name = "ragged_repack_" + name_of(packing) + "_w" + std::to_string(bits)};
      for (uint32_t seed = 0; seed < kCasesPerInstance; ++seed) {
        check.repacks.push_back(random_repack({bits, packing}, seed));
      }
      all.push_back(check);
    }
  }
  return all;
}

}  // namespace

const std::vector<Check>& checks() {
  static const std::vector<Check> all = all_checks();
  return all;
}

}  // namespace padmarlin::emulator
