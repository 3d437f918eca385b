// SPDX-License-Identifier: Apache-2.0
// The probes of tests/probes behind C functions, for ctypes. nvcc and g++ compile this same file;
// pointers are device memory in one library, host memory in the other. A function returns null, or
// what went wrong. Shapes are checked by their caller, tests/conformance/sides.py.
#include "../probes/arithmetic.cuh"
#include "../probes/bulk_pipeline.cuh"
#include "../probes/fixup.cuh"
#include "../probes/format_consumers.cuh"
#include "../probes/pipeline.cuh"
#include "../probes/policy_copy.cuh"
#include "../probes/primitives.cuh"
#include "../probes/tma_tile.cuh"
#include "../probes/warpgroup.cuh"
#include "core/wgmma_block.h"
#include "launch.h"
#include "tensor_map.h"

#define PADMARLIN_EXPORT extern "C" __attribute__((visibility("default")))

using namespace padmarlin;  // NOLINT(google-build-using-namespace): the functions below are C
using conformance::launch;

namespace {

template <typename Function, typename Out, typename... In>
const char* map(int count, Out* out, const In*... in) {
  return launch("map_probe", 1, probes::kMapThreads, 0, probes::map_probe<Function, Out, In...>,
                count, out, in...);
}

template <Dtype kDtype, int kBits>
const char* consume(int consumer, const uint4* tiles, const uint4* activations, float* out) {
  constexpr int kTileBytes = tile_bytes(kBits), kRowBytes = kTile * 2;
  switch (consumer) {
    case 0:
      return launch("operand_b_probe", 1, kWarp, kTileBytes + 16 * kRowBytes,
                    probes::operand_b_probe<kDtype, kBits>, tiles, activations, out);
    case 1:
      return launch("operand_a_probe", 1, kWarp, kTileBytes + 8 * kRowBytes,
                    probes::operand_a_probe<kDtype, kBits>, tiles, activations, out);
    default:
      return launch("register_a_probe", 1, 4 * kWarp, 2 * kTileBytes + 8 * kRowBytes,
                    probes::register_a_probe<kDtype, kBits>, tiles, activations, out);
  }
}

template <Dtype kDtype, int kColumns>
const char* run_wgmma(const uint4* a, const uint4* rows, float* d) {
  return launch("wgmma_probe", 1, probes::kWarpgroupThreads, kColumns * kTile * 2,
                probes::wgmma_probe<kDtype, kColumns>, a, rows, d);
}

template <int kBytes>
const char* partial_copy(const uint8_t* in, int present, uint8_t* out) {
  return launch("partial_copy_probe", 1, kWarp, kWarp * kBytes, probes::partial_copy_probe<kBytes>,
                in, present, out);
}

template <Dtype kDtype, int kBits, Dequant kDequant, bool kAsymmetric>
const char* dequantize(int count, const uint32_t* words, const uint32_t* scales,
                       const uint32_t* zeros, uint32_t* weights) {
  return launch("dequantize_probe", 1, probes::kMapThreads, 0,
                probes::dequantize_probe<kDtype, kBits, kDequant, kAsymmetric>, count, words,
                scales, zeros, weights);
}

// The five kinds of 4-bit and three of 8-bit dequantization.
template <Dtype kDtype>
auto dequantize_of(int bits, int dequant, bool asymmetric) {
  if (bits == 8) {
    if (dequant == 2) return dequantize<kDtype, 8, Dequant::kWide, true>;
    return asymmetric ? dequantize<kDtype, 8, Dequant::kOneField, true>
                      : dequantize<kDtype, 8, Dequant::kOneField, false>;
  }
  if (dequant == 2) return dequantize<kDtype, 4, Dequant::kWide, true>;
  if (dequant == 1) {
    return asymmetric ? dequantize<kDtype, 4, Dequant::kOneField, true>
                      : dequantize<kDtype, 4, Dequant::kOneField, false>;
  }
  return asymmetric ? dequantize<kDtype, 4, Dequant::kTwoField, true>
                    : dequantize<kDtype, 4, Dequant::kTwoField, false>;
}

}  // namespace

// ---- a warp's instructions

PADMARLIN_EXPORT const char* probe_mma(bool half, const uint32_t* a, const uint32_t* b, float* d) {
  return launch("mma_probe", 1, kWarp, 0,
                half ? probes::mma_probe<Dtype::kHalf> : probes::mma_probe<Dtype::kBfloat16>, a, b,
                d);
}

PADMARLIN_EXPORT const char* probe_ldmatrix(const uint4* matrices, int row_pitch,
                                            uint32_t* fragments) {
  return launch("ldmatrix_probe", 1, kWarp, probes::kLdmatrixSharedBytes, probes::ldmatrix_probe,
                matrices, row_pitch, fragments);
}

PADMARLIN_EXPORT const char* probe_exchange(const float* in, float* out) {
  return launch("exchange_probe", 1, probes::kExchangeBlockThreads, probes::kExchangeSharedBytes,
                probes::exchange_probe, in, out);
}

PADMARLIN_EXPORT const char* probe_consume(int consumer, bool half, int bits, const uint4* tiles,
                                           const uint4* activations, float* out) {
  const auto run = half ? (bits == 4 ? consume<Dtype::kHalf, 4> : consume<Dtype::kHalf, 8>)
                        : (bits == 4 ? consume<Dtype::kBfloat16, 4> : consume<Dtype::kBfloat16, 8>);
  return run(consumer, tiles, activations, out);
}

PADMARLIN_EXPORT const char* probe_stmatrix(const uint4* fragments, uint4* rows) {
  return launch("stmatrix_probe", 1, kWarp, kWarp * 16, probes::stmatrix_probe, fragments, rows);
}

PADMARLIN_EXPORT const char* probe_wgmma(bool half, int columns, const uint4* a, const uint4* rows,
                                         float* d) {
  const char* error = "no block of the wgmma kernel has so many rows";
  wgmma::with_block_rows(columns, [&]<int kColumns>() {
    error = half ? run_wgmma<Dtype::kHalf, kColumns>(a, rows, d)
                 : run_wgmma<Dtype::kBfloat16, kColumns>(a, rows, d);
  });
  return error;
}

// ---- copies

PADMARLIN_EXPORT const char* probe_partial_copy(int bytes, const uint8_t* in, int present,
                                                uint8_t* out) {
  switch (bytes) {
    case 4:
      return partial_copy<4>(in, present, out);
    case 8:
      return partial_copy<8>(in, present, out);
    default:
      return partial_copy<16>(in, present, out);
  }
}

PADMARLIN_EXPORT const char* probe_policy_copy(int threads, const uint4* in, uint4* out) {
  return launch("policy_copy_probe", 1, threads, 16 * threads, probes::policy_copy_probe, in, out);
}

PADMARLIN_EXPORT const char* probe_reverse(int blocks, const uint8_t* in, uint8_t* out) {
  return launch("reverse_probe", blocks, probes::kReverseThreads, probes::kReverseSharedBytes,
                probes::reverse_probe<probes::Fault::kNone>, in, out, blocks);
}

PADMARLIN_EXPORT const char* probe_bulk_pipeline(int chunks, const uint8_t* in, uint4* out) {
  return launch("bulk_pipeline_probe", 1, probes::kBulkThreads, probes::kBulkSharedBytes,
                probes::bulk_pipeline_probe<probes::BulkFault::kNone>, in, chunks, out);
}

PADMARLIN_EXPORT const char* probe_tma_tile(int columns, int rows, int pitch_bytes, int x, int y,
                                            const uint16_t* in, uint4* out) {
  ptx::TensorMap map;
  const char* refused =
      conformance::make_tensor_map(in, columns, rows, pitch_bytes, probes::kTmaRows, map);
  if (refused) return refused;
  return launch("tma_tile_probe", 1, kWarp, probes::kTmaSharedBytes, probes::tma_tile_probe, map, x,
                y, out);
}

// ---- global memory that blocks share

PADMARLIN_EXPORT const char* probe_atom_inc(int order, int count, int initial,
                                            const uint32_t* bounds, uint32_t* counter,
                                            uint32_t* out) {
  using ptx::Order;
  decltype(&probes::atom_inc_probe<Order::kRelaxed>) const kernels[] = {
      probes::atom_inc_probe<Order::kRelaxed>, probes::atom_inc_probe<Order::kAcquire>,
      probes::atom_inc_probe<Order::kRelease>, probes::atom_inc_probe<Order::kAcquireRelease>};
  return launch("atom_inc_probe", 1, kWarp, 0, kernels[order], count,
                static_cast<uint32_t>(initial), bounds, counter, out);
}

PADMARLIN_EXPORT const char* probe_ld_global(int threads, const float* in, float4* out) {
  return launch("ld_global_probe", 1, threads, 0, probes::ld_global_probe, in, out);
}

PADMARLIN_EXPORT const char* probe_overlap(int threads, const uint4* in, uint4* out) {
  return launch("overlap_probe", 1, threads, 0, probes::overlap_probe, in, out);
}

// `kind` 0: stream-K of all tiles, 1: split-K in `splits` parts. Counters are zero before.
PADMARLIN_EXPORT const char* probe_fixup(int kind, int tiles, int k_tiles, int blocks, int splits,
                                         const float* terms, float* partials, uint32_t* counters,
                                         float* out) {
  const Partition partition =
      kind == 0 ? stream_k(tiles, k_tiles, blocks, tiles) : split_k(tiles, k_tiles, blocks, splits);
  return launch("fixup_probe", partition.blocks, 64 + probes::kFixupIdle, probes::kFixupSharedBytes,
                probes::fixup_probe<64, 3>, partition, SplitWorkspace{partials, counters}, terms,
                out);
}

// ---- arithmetic

PADMARLIN_EXPORT const char* probe_fma2(bool half, int count, const uint32_t* a, const uint32_t* b,
                                        const uint32_t* c, uint32_t* out) {
  return half ? map<probes::Fma2<Dtype::kHalf>>(count, out, a, b, c)
              : map<probes::Fma2<Dtype::kBfloat16>>(count, out, a, b, c);
}

PADMARLIN_EXPORT const char* probe_mul2(bool half, int count, const uint32_t* a, const uint32_t* b,
                                        uint32_t* out) {
  return half ? map<probes::Mul2<Dtype::kHalf>>(count, out, a, b)
              : map<probes::Mul2<Dtype::kBfloat16>>(count, out, a, b);
}

PADMARLIN_EXPORT const char* probe_sub2(bool half, int count, const uint32_t* a, const uint32_t* b,
                                        uint32_t* out) {
  return half ? map<probes::Sub2<Dtype::kHalf>>(count, out, a, b)
              : map<probes::Sub2<Dtype::kBfloat16>>(count, out, a, b);
}

PADMARLIN_EXPORT const char* probe_broadcast_low(bool half, int count, const uint32_t* a,
                                                 uint32_t* out) {
  return half ? map<probes::BroadcastLow<Dtype::kHalf>>(count, out, a)
              : map<probes::BroadcastLow<Dtype::kBfloat16>>(count, out, a);
}

PADMARLIN_EXPORT const char* probe_broadcast_high(bool half, int count, const uint32_t* a,
                                                  uint32_t* out) {
  return half ? map<probes::BroadcastHigh<Dtype::kHalf>>(count, out, a)
              : map<probes::BroadcastHigh<Dtype::kBfloat16>>(count, out, a);
}

PADMARLIN_EXPORT const char* probe_pack2(bool half, int count, const float* low, const float* high,
                                         uint32_t* out) {
  return half ? map<probes::Pack2<Dtype::kHalf>>(count, out, low, high)
              : map<probes::Pack2<Dtype::kBfloat16>>(count, out, low, high);
}

PADMARLIN_EXPORT const char* probe_to_float(bool half, int count, const uint16_t* a, float* out) {
  return half ? map<probes::ToFloat<Dtype::kHalf>>(count, out, a)
              : map<probes::ToFloat<Dtype::kBfloat16>>(count, out, a);
}

PADMARLIN_EXPORT const char* probe_prmt(int count, const uint32_t* a, const uint32_t* b,
                                        const uint32_t* selector, uint32_t* out) {
  return map<probes::Prmt>(count, out, a, b, selector);
}

PADMARLIN_EXPORT const char* probe_dequantize(bool half, int bits, int dequant, bool asymmetric,
                                              int count, const uint32_t* words,
                                              const uint32_t* scales, const uint32_t* zeros,
                                              uint32_t* weights) {
  const auto run = half ? dequantize_of<Dtype::kHalf>(bits, dequant, asymmetric)
                        : dequantize_of<Dtype::kBfloat16>(bits, dequant, asymmetric);
  return run(count, words, scales, zeros, weights);
}
